"""What sensors do when they work badly: one modality of a frame, corrupted by a level.

Libraries of corruptions take 8-bit images alone; these also take depth in metres, in which 0 is not
measured, and other modalities.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

PHOTONS = 1000.0  # that a white pixel takes in at full light


def missing_pixels(x: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Set a share of the pixels to 0."""
    return np.where(rng.random(x.shape[:2])[..., None] < level, 0, x)


def missing_blocks(x: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Set squares of an eighth of the shorter side to 0, until a share of the pixels is."""
    side = max(1, min(x.shape[:2]) // 8)
    rows, columns = (-(-n // side) for n in x.shape[:2])
    gone = np.zeros(rows * columns, bool)
    gone[rng.permutation(len(gone))[: round(level * len(gone))]] = True
    mask = np.kron(gone.reshape(rows, columns), np.ones((side, side), bool))
    return np.where(mask[: x.shape[0], : x.shape[1], None], 0, x)


def noise(x: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise of ``level`` times the frame's standard deviation where x is measured."""
    values = x.astype(np.float32)
    noisy = values + rng.normal(0, level * values.std(), x.shape)
    if x.min() >= 0:  # what is not negative, such as depth, stays so
        noisy = np.maximum(noisy, 0)
    return np.where(x == 0, 0, noisy) if x.shape[2] == 1 else noisy


def distance_noise(x: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise of ``level * z**2`` metres to depth z, as of triangulating sensors."""
    return np.maximum(x + rng.normal(0, 1, x.shape) * level * x**2, 0)


def quantise(x: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Round to ``2**level`` values from 0 to the frame's maximum."""
    step = max(float(x.max()), 1e-6) / (2**level - 1)
    return np.round(x / step) * step


def shift(x: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Move to the right by ``level`` pixels; what comes in is 0."""
    pixels = min(round(level), x.shape[1])
    moved = np.zeros_like(x)
    moved[:, pixels:] = x[:, : x.shape[1] - pixels]
    return moved


def darkness(x: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Leave a share of the light, with the shot noise of the photons that are left."""
    photons = rng.poisson(x / 255.0 * level * PHOTONS)
    return photons / PHOTONS * 255.0


def over_exposure(x: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Multiply the light; what is above white is white."""
    return x * np.float32(level)


def motion_blur(x: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Average over a horizontal line of ``level`` pixels."""
    length = max(1, round(level))
    kernel = np.full((1, length), 1 / length, np.float32)
    blurred = cv2.filter2D(x.astype(np.float32), -1, kernel, borderType=cv2.BORDER_REPLICATE)
    return blurred.reshape(x.shape)


Change = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
ANY: dict[str, Change] = {
    'missing_pixels': missing_pixels,
    'missing_blocks': missing_blocks,
    'noise': noise,
    'shift': shift,
    'motion_blur': motion_blur,
    'quantise': quantise,
}
COLOUR: dict[str, Change] = {'darkness': darkness, 'over_exposure': over_exposure}
DEPTH: dict[str, Change] = {'distance_noise': distance_noise}
KINDS = (*ANY, *COLOUR, *DEPTH)
LARGEST = {'missing_pixels': 1, 'missing_blocks': 1, 'darkness': 1, 'quantise': 16}
LEAST = {'quantise': 1}


@TRANSFORMS.register_module()
class CorruptModality(BaseTransform):
    """Corrupt one modality of a frame, right after loading.

    Kinds and their levels: ``'missing_pixels'`` and ``'missing_blocks'`` (share of the pixels that
    become 0), ``'noise'`` (Gaussian, in standard deviations of the frame), ``'distance_noise'``
    (of depth: Gaussian, ``level * z**2`` metres at z metres), ``'quantise'`` (bits), ``'shift'``
    (pixels to the right), ``'motion_blur'`` (pixels), ``'darkness'`` (of colour: share of the light
    that is left, with shot noise) and ``'over_exposure'`` (of colour: factor of the light). Shape
    and type of the array stay; 8-bit values are rounded and clipped.

    Args:
        modality: Its name. A frame without it stays as it is.
        kind: One of the kinds.
        level: The level, or a lowest and highest one to draw from evenly.
        prob: Probability that a frame is corrupted.
        seed: Draw by this number and the name of the frame, so that every run corrupts it alike.
            None draws anew each time from NumPy's global generator, as training wants.

    Raises:
        ValueError: If the kind is unknown, does not fit the modality, or a level is out of range.

    Example:
        >>> sample = dict(modalities=dict(depth=np.full((8, 8, 1), 2.0, np.float32)))
        >>> half = CorruptModality('depth', 'missing_blocks', 0.5, seed=0)(sample)
        >>> float(half['modalities']['depth'].mean())
        1.0
    """

    def __init__(
        self,
        modality: str,
        kind: str,
        level: float | Sequence[float],
        prob: float = 1.0,
        seed: int | None = None,
    ) -> None:
        levels = tuple(level) if isinstance(level, Sequence) else (level, level)
        if kind not in KINDS:
            raise ValueError(f'kind must be one of {list(KINDS)}, got {kind!r}')
        low, top = LEAST.get(kind, 0), LARGEST.get(kind, float('inf'))
        if len(levels) != 2 or not low <= levels[0] <= levels[1] <= top:
            raise ValueError(
                f'level of {kind} must be a number from {low} to {top}, or a lowest and a highest '
                f'one, got {level!r}'
            )
        if not 0 <= prob <= 1:
            raise ValueError(f'prob must be within 0..1, got {prob}')
        self.modality, self.kind, self.levels = modality, kind, levels
        self.prob, self.seed = prob, seed

    def transform(self, results: dict) -> dict:
        array = results['modalities'].get(self.modality)
        if array is None:
            return self._absent(results)
        self._check(array)
        rng = self._generator(results)
        if rng.random() < self.prob:
            level = rng.uniform(*self.levels)
            changed = {**ANY, **COLOUR, **DEPTH}[self.kind](array, level, rng)
            if array.dtype.kind in 'ui':
                limits = np.iinfo(array.dtype)
                changed = np.clip(np.round(changed), limits.min, limits.max)
            changed = np.ascontiguousarray(changed, dtype=array.dtype)
            results['modalities'] = {**results['modalities'], self.modality: changed}
            results['corrupted'] = {*results.get('corrupted', ()), self.modality}
        return results

    def _absent(self, results: dict) -> dict:
        known = list(results.get('known_modalities', results['modalities']))
        if self.modality not in known:
            raise ValueError(f'modality {self.modality!r} is unknown: choose one of {known}')
        return results

    def _check(self, array: np.ndarray) -> None:
        if self.kind in COLOUR and array.dtype != np.uint8:
            raise ValueError(
                f'{self.kind} is for 8-bit colour, and {self.modality!r} is {array.dtype}: choose '
                f'one of {list(ANY)}'
            )
        if self.kind in DEPTH and (array.dtype.kind != 'f' or array.shape[2] != 1):
            raise ValueError(
                f'{self.kind} is for depth in metres, and {self.modality!r} is {array.dtype} of '
                f'{array.shape[2]} channels: choose one of {list(ANY)}'
            )

    def _generator(self, results: dict) -> np.random.Generator:
        if self.seed is None:
            return np.random.default_rng(np.random.randint(2**31))
        name = str(results.get('img_path', results.get('sample_idx', '')))
        name = '/'.join(name.replace('\\', '/').split('/')[-2:])  # whatever the root is
        words = f'{self.modality} {self.kind} {name}'
        return np.random.default_rng([self.seed, zlib.crc32(words.encode())])

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}({self.modality!r}, {self.kind!r}, level={self.levels}, '
            f'prob={self.prob}, seed={self.seed})'
        )
