"""Imperfections of a colour and depth camera, so that neither modality is perfect."""

from dataclasses import dataclass, fields

import cv2
import numpy as np

from .. import domains


@dataclass(frozen=True)
class Sensor:
    """Imperfections that are added to a frame.

    Attributes:
        colour_noise: Standard deviation of the colour noise, full range 1.
        exposure: Brightness varies per scene by up to this share, either way.
        tint: Each colour channel varies per scene by up to this share, either way.
        depth_noise: Multiple of a Kinect's noise, whose standard deviation is
            0.0012 + 0.0019 (z - 0.4)^2 metres (Nguyen, Izadi, Lovell, 2012): 14 mm at 3 m.
        holes: Share of the pixels whose depth is missing (0), in patches.
        torn_edges: Share of the pixels along occlusion edges whose depth is missing.

    Raises:
        ValueError: If a value is negative, or a share is above 1.
    """

    colour_noise: float = 0.03
    exposure: float = 0.2
    tint: float = 0.06
    depth_noise: float = 1.0
    holes: float = 0.03
    torn_edges: float = 0.25

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            top = float('inf') if field.name.endswith('noise') else 1
            if not 0 <= value <= top:
                raise ValueError(f'sensor {field.name} must be in [0, {top}], got {value}')

    def colour(self, colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Colour (H, W, 3) in [0, 1] as the sensor gives it, float32 in [0, 1]."""
        gain = 1 + rng.uniform(-self.exposure, self.exposure)
        gains = np.float32(gain * (1 + rng.uniform(-self.tint, self.tint, 3)))
        noise = rng.standard_normal(colour.shape, dtype=np.float32)
        return np.clip(colour * gains + np.float32(self.colour_noise) * noise, 0, 1)

    def depth(self, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Z depth (H, W) in metres as the sensor gives it, float32, 0 = missing."""
        deviation = np.float32(0.0012) + np.float32(0.0019) * (depth - np.float32(0.4)) ** 2
        noise = rng.standard_normal(depth.shape, dtype=np.float32)
        noisy = depth + np.float32(self.depth_noise) * deviation * noise
        torn = rng.random(depth.shape, dtype=np.float32) < self.torn_edges
        missing = torn & (domains.occlusion_edges(depth) > 0)
        if self.holes:
            missing |= _patches(depth.shape, self.holes, rng)
        return np.where(missing, np.float32(0), np.maximum(noisy, np.float32(1e-3)))


def _patches(shape: tuple[int, ...], share: float, rng: np.random.Generator) -> np.ndarray:
    """Round patches covering that share of an (H, W) image: smooth noise above its quantile."""
    coarse = rng.standard_normal((12, 16), dtype=np.float32)
    field = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return field > np.quantile(field, 1 - share)
