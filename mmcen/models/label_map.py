"""Most likely class of each pixel, without logits at full size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 8192  # pixels at a time: their logits stay in the cache of a core
FAST = (torch.float32, torch.float64)


def label_map(logits: Tensor, size: tuple[int, int], align_corners: bool | None = None) -> Tensor:
    """Resize logits bilinearly and take the most likely class: ``F.interpolate``, then ``argmax``.

    A resized logit is a weighted mean of four neighbours, with the same weights for every class.
    If the four neighbours have the same class, every pixel between them has it, too. On the CPU,
    logits are therefore interpolated only where the neighbours differ. Labels equal those of
    ``F.interpolate`` and ``argmax``, except where two logits are equal up to rounding. Other
    devices and types than float32 and float64 use ``F.interpolate`` and ``argmax``.

    Args:
        logits: ``(K, h, w)``.
        size: Height H and width W.
        align_corners: See ``F.interpolate``.

    Returns:
        ``(H, W)``, int64.

    Examples:
        >>> logits = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]])  # two classes, 1x2 pixels
        >>> label_map(logits, (1, 4))
        tensor([[0, 0, 1, 1]])
    """
    logits = logits.detach()
    if logits.device.type != 'cpu' or logits.dtype not in FAST:
        resized = F.interpolate(
            logits[None], tuple(size), mode='bilinear', align_corners=align_corners
        )
        return resized[0].argmax(0)
    height, width = logits.shape[1:]
    rows = logits.flatten(1).t().contiguous()  # (h*w, K)
    coarse = _argmax(rows).view(height, width)
    if (height, width) == tuple(size):
        return coarse
    y, x = (_taps(n, to, bool(align_corners)) for n, to in zip(coarse.shape, size, strict=True))
    sure = torch.where(_agree(coarse), coarse, -1)
    labels = sure.index_select(1, x[0]).index_select(0, y[0])
    for pixels in (labels < 0).nonzero().split(CHUNK):
        at_y, at_x = pixels.t().contiguous()
        labels[at_y, at_x] = _argmax(_interpolate(rows, width, _at(y, at_y), _at(x, at_x)))
    return labels


def resize_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a label map ``(h, w)`` to ``(H, W)`` by the nearest pixel."""
    if labels.shape == tuple(size):
        return labels
    y, x = (
        ((torch.arange(to) + 0.5) * (n / to)).long()
        for n, to in zip(labels.shape, size, strict=True)
    )
    return labels.index_select(0, y).index_select(1, x)


Taps = tuple[Tensor, Tensor, Tensor]


def _taps(source: int, target: int, align_corners: bool) -> Taps:
    """Return both source pixels of each target pixel along one axis, and the weight of the second.

    The arithmetic is that of ``F.interpolate``.
    """
    at = torch.arange(target, dtype=torch.float32)
    if align_corners:
        at = at * ((source - 1) / max(target - 1, 1))
    else:
        at = ((at + 0.5) * (source / target) - 0.5).clamp(min=0)
    low = at.long().clamp(max=source - 1)
    return low, (low + 1).clamp(max=source - 1), (at - low).clamp(0, 1)


def _at(taps: Taps, pixels: Tensor) -> Taps:
    """Select the taps of some target pixels."""
    low, high, weight = (values.index_select(0, pixels) for values in taps)
    return low, high, weight


def _interpolate(rows: Tensor, width: int, y: Taps, x: Taps) -> Tensor:
    """Return logits ``(N, K)`` of N target pixels, weighted sums of four rows each."""
    (top, bottom, down), (left, right, across) = y, x
    top, bottom, both = top * width, bottom * width, down * across
    corners = torch.stack([top + left, top + right, bottom + left, bottom + right], 1)  # (N, 4)
    weights = torch.stack([1 - down - across + both, across - both, down - both, both], 1)
    return F.embedding_bag(corners, rows, mode='sum', per_sample_weights=weights.to(rows.dtype))


def _agree(labels: Tensor) -> Tensor:
    """Whether a pixel, its right and lower neighbours and the one between have the same label."""
    same = torch.ones_like(labels, dtype=torch.bool)
    same[:, :-1] = labels[:, :-1] == labels[:, 1:]
    same[:-1] &= same[1:] & (labels[:-1] == labels[1:])
    return same


def _argmax(rows: Tensor) -> Tensor:
    """Return the column of the largest value of each row; NumPy takes a third of PyTorch's time."""
    return torch.from_numpy(rows.numpy().argmax(1))
