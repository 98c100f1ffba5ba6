"""Procedural textures: noise, checker, stripes, evaluated at surface coordinates in metres."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

TILE = 256  # a power of two: coordinates wrap by a bit mask


@dataclass(frozen=True)
class Texture:
    """Two colours mixed by a pattern, dulled by a grain.

    Attributes:
        kind: 'plain', 'noise', 'checker' or 'stripes'.
        colours: Two RGB colours in [0, 1].
        period: Size of the pattern in metres.
        angle: Rotation of the pattern in radians.
        shift: Offset of the pattern in metres.
        grain: Share of the brightness that fine noise takes away at most.
    """

    kind: str
    colours: tuple[tuple[float, float, float], tuple[float, float, float]]
    period: float = 0.5
    angle: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    grain: float = 0.05

    def __call__(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Albedo (3, N) float32 in [0, 1] at the surface coordinates (N,) in metres."""
        u, v = u + np.float32(self.shift[0]), v + np.float32(self.shift[1])
        first, second = np.asarray(self.colours, np.float32)[:, :, None]
        albedo = first + (second - first) * self._pattern(u, v)
        if self.grain:
            albedo *= 1 - np.float32(self.grain) * fractal_noise(u / 4, v / 4)
        return albedo

    def _pattern(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Share of the second colour, (N,) float32 in [0, 1]."""
        if self.kind == 'plain':
            return np.zeros_like(u)
        cos = np.float32(math.cos(self.angle) / self.period)
        sin = np.float32(math.sin(self.angle) / self.period)
        a, b = cos * u + sin * v, cos * v - sin * u
        if self.kind == 'stripes':
            # a steep triangle wave; see shapes on why not a sine
            return np.clip(12 * np.abs(a - np.floor(a) - np.float32(0.5)) - np.float32(2.5), 0, 1)
        if self.kind == 'checker':
            return ((np.floor(a).astype(np.int32) + np.floor(b).astype(np.int32)) & 1).astype(
                np.float32
            )
        if self.kind == 'noise':
            return np.clip(3 * fractal_noise(a / 4, b / 4) - 1, 0, 1)
        known = "'plain', 'noise', 'checker', 'stripes'"
        raise ValueError(f'texture kind must be one of {known}, got {self.kind!r}')


@lru_cache(maxsize=1)
def _noise_tile() -> np.ndarray:
    """Periodic fractal noise, (TILE * TILE,) float32 in [0, 1]: octaves of random lattices."""
    rng = np.random.default_rng(0)
    u, v = np.meshgrid(*[np.arange(TILE, dtype=np.float32)] * 2)
    total = np.zeros(TILE * TILE, np.float32)
    for octave in range(5):
        cells = 4 << octave
        lattice = rng.random(cells * cells, dtype=np.float32)
        step = np.float32(cells / TILE)
        total += _bilinear(lattice, cells, u.ravel() * step, v.ravel() * step) / (1 << octave)
    total -= total.min()
    return total / total.max()


def fractal_noise(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Fractal noise with period 1 in both coordinates (N,), float32 in [0, 1]."""
    return _bilinear(_noise_tile(), TILE, u * TILE, v * TILE)


def _bilinear(tile: np.ndarray, side: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Bilinear look-up in a flat periodic (side * side,) tile at texel coordinates (N,)."""
    column, row = np.floor(u), np.floor(v)
    du, dv = u - column, v - row
    left, top = column.astype(np.int32) & (side - 1), row.astype(np.int32) & (side - 1)
    right, bottom = (left + 1) & (side - 1), ((top + 1) & (side - 1)) * side
    top *= side
    upper = tile[top + left] * (1 - du) + tile[top + right] * du
    lower = tile[bottom + left] * (1 - du) + tile[bottom + right] * du
    return upper * (1 - dv) + lower * dv
