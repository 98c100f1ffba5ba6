"""HHA: depth as horizontal disparity, height above ground and angle with gravity.

Gupta, Girshick, Arbelaez, Malik: Learning Rich Features from RGB-D Images for Object Detection and
Segmentation, ECCV 2014; numbers as in their ``saveHHA.m``, ``processDepthImage.m``, ``getYDir.m``
(github.com/s-gupta/rcnn-depth). The three channels are in about 0..255, so that weights learned
from colour can be used. Camera frame and conventions are those of :mod:`~mmcen.datasets.domains`.
"""

from collections.abc import Sequence

import numpy as np

from .domains import backproject, check_map, normals_from_depth

DISPARITY = 310.0  # metres: the first channel is this over the depth ...
NEAREST = 1.0  # ... or over 1 m for what is nearer
CENTIMETRES = 100.0
LEVEL = 38.0  # the third channel is this plus degrees, so that walls are 128
LOWEST, EYE = 0.9, 1.3  # if no point is 0.9 m below the camera, its height is assumed to be 1.3 m
ANGLES = (45.0, 15.0)
ITERATIONS = 5
GRAZING = 10.0  # cotangent of the flattest view of a surface whose pixels count as neighbours
DOWN = (0.0, 1.0, 0.0)


def gravity_from_normals(normals: np.ndarray, start: Sequence[float] = DOWN) -> np.ndarray:
    """Estimate the direction parallel to the normals of floors and orthogonal to those of walls.

    It starts at ``start`` and iterates five times with 45 and five times with 15 degrees. Floors
    (and ceilings) are the normals within that angle of the direction, walls those within that angle
    of the orthogonal plane. The new direction g minimises the sum of (n . g)^2 over walls minus the
    sum over floors.

    Args:
        normals: (..., 3), unit vectors of any sign; (0, 0, 0) = unknown.
        start: Initial direction, by default that of a camera that is held upright.

    Returns:
        Unit vector (3,) that points down, in the half space of ``start``; ``start`` itself if no
        normal is known.

    Raises:
        ValueError: If the last dimension of normals is not 3, or start is not a direction.
    """
    if normals.shape[-1:] != (3,):
        raise ValueError(f'normals must have shape (..., 3), got {normals.shape}')
    down = unit_vector('start', start)
    known = normals.reshape(-1, 3).astype(np.float64)
    known = known[known.any(axis=1)]
    for angle in np.deg2rad(np.repeat(ANGLES, ITERATIONS)):
        along = np.abs(known @ down)
        floors, walls = known[along > np.cos(angle)], known[along < np.sin(angle)]
        # A small weight for the old direction, because with a single wall two directions are equal.
        # It does not change the fixed point.
        votes = walls.T @ walls - floors.T @ floors
        votes -= (1e-3 * len(known) + 1e-9) * np.outer(down, down)
        best = np.linalg.eigh(votes)[1][:, 0]
        down = best if best @ down > 0 else -best
    return down


def encode_hha(
    depth: np.ndarray,
    intrinsics: np.ndarray,
    gravity: np.ndarray | Sequence[float] | None = None,
    radius: int = 3,
) -> np.ndarray:
    """Encode a depth map as HHA.

    Args:
        depth: Z depth (H, W) in metres, 0 = missing.
        intrinsics: (3, 3).
        gravity: Direction of gravity in the camera frame, of any length; (0, 1, 0) for a level
            camera. Default: estimated from normals of windows three times as large.
        radius: Radius of the normals' windows, in pixels.

    Returns:
        (H, W, 3) float32 in [0, 255]: 310 m / depth; height in cm above the lowest point, or above
        1.3 m below the camera where that is less than 0.9 m below it; 38 + degrees between gravity
        and the normal that points away from the camera (38 floors, 128 walls, 218 ceilings). 0
        where depth is missing, and in the third channel where no normal is known.

    Raises:
        ValueError: If depth is not (H, W), radius is below 1, or gravity is not a direction.
    """
    check_map('depth', depth)
    if gravity is None:
        # a subset of pixels is enough: the original's windows have a radius of 10 at 480x640
        step = max(1, min(depth.shape) // 120)
        coarse = np.diag([1 / step, 1 / step, 1]) @ intrinsics
        gravity = gravity_from_normals(_normals(depth[::step, ::step], coarse, 3))
    down = unit_vector('gravity', gravity).astype(np.float32)
    known = depth > 0
    hha = np.zeros((*depth.shape, 3), np.float32)
    hha[..., 0] = DISPARITY / np.maximum(depth, NEAREST)
    up = -(backproject(depth, intrinsics) @ down)  # metres above the camera
    ground = up.min(where=known, initial=0)
    hha[..., 1] = CENTIMETRES * (up - (ground if ground < -LOWEST else -EYE))
    normals = _normals(depth, intrinsics, radius)
    angle = np.rad2deg(np.arccos(np.clip(-(normals @ down), -1, 1)))
    hha[..., 2] = np.where(normals.any(axis=2), LEVEL + angle, 0)
    return np.where(known[..., None], hha.clip(0, 255), 0)


def _normals(depth: np.ndarray, intrinsics: np.ndarray, radius: int) -> np.ndarray:
    """Return normals (H, W, 3), also for floors in small frames with large steps between rows."""
    return normals_from_depth(depth, intrinsics, radius, max(0.05, GRAZING / intrinsics[1, 1]))


def unit_vector(name: str, direction: np.ndarray | Sequence[float]) -> np.ndarray:
    """Scale a direction to length 1, (3,) float64.

    Raises:
        ValueError: If there are not three numbers, or all are 0.
    """
    vector = np.asarray(direction, np.float64)
    length = np.linalg.norm(vector)
    if vector.shape != (3,) or not np.isfinite(length) or length == 0:
        raise ValueError(f'{name} must be a direction of 3 numbers, not all 0, got {direction}')
    return vector / length
