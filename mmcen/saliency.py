"""Saliency of an RGB-D frame without labels: a handcrafted map, and refinement by depth.

All functions work on arrays, without a network. The handcrafted map is the mean of three priors of
the methods in Table 14. The refinement is the label update of reference [82] of the paper (Ji et
al., Promoting Saliency From Depth, ICLR 2022; official code github.com/jiwei0921/DSU), with the
simplifications named below.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

VOID = 255
SURE = VOID - 1  # "salient" of a pseudo label in a sample, where 0..1 is stored as 0..254
NEAR = ('low', 'high')  # which stored values are near: distances, or disparities
GRID = 64  # priors are computed with the longer side at most this long
DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))  # rows, columns


def nearness(depth: np.ndarray, near: str = 'low', missing: float | None = None) -> np.ndarray:
    """Compute how near each pixel is, relative to its frame, in the same form for all data sets.

    Args:
        depth: (H, W), in any unit.
        near: ``'low'`` if small values are near, as of distances; ``'high'`` as of disparities.
        missing: Value of pixels that were not measured; None if there are none.

    Returns:
        (H, W) float32 within 0..1, 1 for the nearest pixel of the frame; all 0 for a flat map. A
        pixel that was not measured takes the value of the closest one that was.

    Raises:
        ValueError: If ``near`` is unknown.
    """
    if near not in NEAR:
        raise ValueError(f'near must be one of {NEAR}, got {near!r}: which values are near?')
    values = depth.astype(np.float32)
    known = np.isfinite(values) if missing is None else np.isfinite(values) & (values != missing)
    if not known.any():
        return np.zeros_like(values)
    low, high = values[known].min(), values[known].max()
    relative = (values - low) / max(high - low, 1e-6)
    relative = relative if near == 'high' or high == low else 1 - relative
    if not known.all():  # a hole would look like an object
        rows, columns = distance_transform_edt(~known, return_distances=False, return_indices=True)
        relative = relative[rows, columns]
    return relative.astype(np.float32)


def handmade_saliency(rgb: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Compute a saliency map from three priors, without labels.

    - *Boundary*: distance, in colour and depth along the shortest path, to the frame's border,
      which is mostly background (geodesic saliency, Wei et al., ECCV 2012).
    - *Contrast*: difference from the colour and depth of the most similar side of the border
      (background cue of MB+, Zhang et al., ICCV 2015, the paper's [95]; there of colour only).
    - *Depth*: distance in front of the surrounding background (anisotropic centre-surround
      difference, Ju et al., ICIP 2014, the paper's [84]).

    Args:
        rgb: (H, W, 3) uint8.
        near: (H, W) within 0..1 as of :func:`nearness`.

    Returns:
        (H, W) float32 within 0..1.
    """
    height, width = near.shape
    scale = min(1.0, GRID / max(height, width))
    size = (max(2, round(width * scale)), max(2, round(height * scale)))
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab) / 100
    colour = cv2.resize(lab, size, interpolation=cv2.INTER_AREA)
    depth = cv2.resize(near, size, interpolation=cv2.INTER_AREA)
    features = np.dstack([colour, depth])  # (h, w, 4)
    priors = (_boundary(features), _contrast(features), _depth_contrast(depth))
    saliency = _stretch(np.sum([_stretch(prior) for prior in priors], 0))
    saliency = cv2.resize(saliency, (width, height), interpolation=cv2.INTER_LINEAR)
    guide = np.dstack([lab, near])
    smooth = guided_filter(guide, saliency, max(1, round(0.05 * max(height, width))), 1e-3)
    return _stretch(1 / (1 + np.exp(-10 * (_stretch(smooth) - 0.5))))


def refine_saliency(
    saliency: np.ndarray,
    near: np.ndarray,
    rgb: np.ndarray,
    radius: float = 0.05,
    strength: float = 4.0,
) -> np.ndarray:
    """Refine a network's saliency map by depth and colour to the next pseudo label.

    This is the label update of [82]. Depth is split into a salient part ``S * D`` and a background
    part ``(1 - S) * D``. The first is added to the map's logits, the second is subtracted, negative
    values become 0, the result is stretched to 0..1, and a conditional random field aligns it.

    Changed: the map is stretched to 0..1 first, and logit 0 is the middle between its two classes
    by Otsu's method (1979) instead of 1/2 as in [82]. Maps of a network early in training have low
    contrast: on rendered rooms, labels with 1/2 were black after three rounds.

    Simplified: in [82] two small networks learn to predict the two parts from image features; here
    the parts are the targets of these networks. The mean-field step of the random field uses a
    guided filter of colour and depth (He et al., 2013) instead of Gaussian filters over all pairs
    of pixels.

    Args:
        saliency: S, (H, W) within 0..1.
        near: D, (H, W) within 0..1 as of :func:`nearness`.
        rgb: (H, W, 3), 0..255.
        radius: Radius of the filter, as a share of the longer side.
        strength: Weight of the neighbours, in logits.

    Returns:
        (H, W) float32 within 0..1.
    """
    stretched = _stretch(saliency)
    logits = _logit(stretched) - _logit(_middle(stretched))
    raised = np.maximum(logits + stretched * near - (1 - stretched) * near, 0)
    label = _stretch(1 / (1 + np.exp(-raised)))
    guide = np.dstack([rgb.astype(np.float32) / 255, near])
    window = max(1, round(radius * max(near.shape)))
    opinion = 2 * guided_filter(guide, label, window, 1e-3) - 1
    return (1 / (1 + np.exp(-_logit(label) - strength * opinion))).astype(np.float32)


def guided_filter(guide: np.ndarray, values: np.ndarray, radius: int, epsilon: float) -> np.ndarray:
    """Smooth values within similar regions of a guide: the guided filter of several channels.

    In every window the result is an affine function of the guide, fitted to the values by ridge
    regression (He, Sun, Tang, Guided Image Filtering, PAMI 2013, equations 14 to 16).

    Args:
        guide: (H, W, C).
        values: (H, W).
        radius: Windows are 2 * radius + 1 pixels wide.
        epsilon: Ridge term: variance of the guide below which values are smoothed.

    Returns:
        (H, W) float32.
    """
    guide, values = guide.astype(np.float32), values.astype(np.float32)
    channels = guide.shape[2]

    def mean(array: np.ndarray) -> np.ndarray:
        flat = array.reshape(*values.shape, -1)
        # OpenCV filters any number of channels, but gives up the axis of a single one
        out = cv2.blur(flat, (2 * radius + 1,) * 2, borderType=cv2.BORDER_REFLECT_101)
        return out.reshape(array.shape)

    centre, level = mean(guide), mean(values)
    products = guide[..., :, None] * guide[..., None, :]  # (H, W, C, C)
    covariance = mean(products) - centre[..., :, None] * centre[..., None, :]
    joint = mean(guide * values[..., None]) - centre * level[..., None]  # (H, W, C)
    ridge = covariance + np.float32(epsilon) * np.eye(channels, dtype=np.float32)
    slope = np.linalg.solve(ridge, joint[..., None])[..., 0]  # (H, W, C)
    offset = level - (slope * centre).sum(2)
    return np.clip((mean(slope) * guide).sum(2) + mean(offset), values.min(), values.max())


def _boundary(features: np.ndarray) -> np.ndarray:
    """Return the length of the shortest path to the border, (h, w); steps cost their contrast."""
    height, width, _ = features.shape
    index = np.arange(height * width).reshape(height, width)
    pairs = []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        first = index[: height - down, max(0, -right) : width - max(0, right)]
        second = index[down:, max(0, right) : width - max(0, -right)]
        pairs.append(np.stack([first.ravel(), second.ravel()]))
    first, second = np.concatenate(pairs, 1)
    flat = features.reshape(height * width, -1)
    steps = np.linalg.norm(flat[first] - flat[second], axis=1)
    # Small steps are noise and shading, whose sum would look like an object. They are not exactly 0
    # because a sparse matrix would treat 0 as no edge.
    steps = np.maximum(steps - np.median(steps), 1e-6)
    graph = coo_matrix((steps, (first, second)), shape=(height * width,) * 2).tocsr()
    border = np.concatenate([index[0], index[-1], index[1:-1, 0], index[1:-1, -1]])
    length = dijkstra(graph, directed=False, indices=border, min_only=True)
    return np.where(length < 1e-3, 0, length).reshape(height, width)  # a flat frame has no object


def _contrast(features: np.ndarray) -> np.ndarray:
    """Return the Mahalanobis distance to the most similar side of the border, (h, w)."""
    flat = features.reshape(-1, features.shape[2])
    sides = (features[:2], features[-2:], features[:, :2], features[:, -2:])
    distances = []
    for side in sides:
        pixels = side.reshape(-1, features.shape[2])
        spread = np.cov(pixels, rowvar=False) + 1e-3 * np.eye(features.shape[2])
        away = flat - pixels.mean(0)
        distances.append(np.sqrt((away * np.linalg.solve(spread, away.T).T).sum(1)))
    return np.min(distances, 0).reshape(features.shape[:2])


def _depth_contrast(near: np.ndarray) -> np.ndarray:
    """Sum over eight directions how much nearer a pixel is than the farthest one there."""
    reach = max(1, max(near.shape) // 3)
    padded = np.pad(near, reach, mode='edge')
    total = np.zeros_like(near)
    for direction in DIRECTIONS:
        total += near - np.min([_shifted(padded, reach, direction, k) for k in range(reach + 1)], 0)
    return total


def _shifted(padded: np.ndarray, reach: int, direction: Sequence[int], steps: int) -> np.ndarray:
    top, left = (reach + steps * step for step in direction)
    height, width = (side - 2 * reach for side in padded.shape)
    return padded[top : top + height, left : left + width]


def _stretch(values: np.ndarray) -> np.ndarray:
    """Stretch values to 0..1; a flat map becomes 0."""
    low, high = values.min(), values.max()
    return ((values - low) / max(high - low, 1e-8)).astype(np.float32)


def _middle(share: np.ndarray) -> float:
    """Return the middle between the means of Otsu's two classes; 1/2 for a flat map."""
    levels = np.rint(share * 255).astype(np.uint8)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    above = levels > threshold
    return (share[above].mean() + share[~above].mean()) / 2 if 0 < above.mean() < 1 else 0.5


def _logit(share: np.ndarray | float) -> np.ndarray:
    share = np.clip(share, 1e-3, 1 - 1e-3)
    return np.log(share / (1 - share))
