"""A frame with sensor noise, and the table of all domains."""

from collections.abc import Callable

import numpy as np

from .. import domains
from .renderer import RenderedFrame
from .sampler import sample_scene
from .sensor import Sensor

ALIASES = {'depth': 'depth_zbuffer'}


class Shot:
    """One frame with sensor noise: each domain (H, W, C) is computed at its first use.

    Colour and depth have the sensor's noise. The other domains are targets, computed from the clean
    frame.

    Args:
        scene_key: Numbers that name the scene; the same key gives the same shot anywhere.
        size: (H, W).
        sensor: Imperfections; None = a perfect sensor.
    """

    def __init__(
        self, scene_key: tuple[int, ...], size: tuple[int, int], sensor: Sensor | None
    ) -> None:
        self.key = scene_key
        self.frame = RenderedFrame(sample_scene(self._rng(0)), *size)
        self.sensor = sensor

    def _rng(self, purpose: int) -> np.random.Generator:
        """A generator per purpose: what is rendered never depends on what else is asked for."""
        return np.random.default_rng((*self.key, purpose))

    def rgb(self) -> np.ndarray:
        """Colour (H, W, 3) uint8."""
        colour = self.frame.colour
        if self.sensor is not None:
            colour = self.sensor.colour(colour, self._rng(1))
        return np.rint(colour * 255).astype(np.uint8)

    def depth_zbuffer(self) -> np.ndarray:
        """Z depth (H, W, 1) float32 in metres, 0 = missing."""
        depth = self.frame.depth
        if self.sensor is not None:
            depth = self.sensor.depth(depth, self._rng(2))
        return depth[..., None]

    def depth_euclidean(self) -> np.ndarray:
        """Distance to the camera (H, W, 1) float32 in metres, 0 = missing."""
        depth = self.depth_zbuffer()[..., 0]
        return domains.euclidean_depth(depth, self.frame.intrinsics)[..., None]

    def normal(self) -> np.ndarray:
        """Unit normals (H, W, 3) float32 in the camera frame (x right, y down, z forward)."""
        return self.frame.normals

    def reshading(self) -> np.ndarray:
        """Shading by a head light (H, W, 1) float32 in [0, 1]."""
        return domains.reshading(self.frame.normals)[..., None]

    def edge_texture(self) -> np.ndarray:
        """Luminance gradient (H, W, 1) float32 in [0, 1] per pixel."""
        return domains.texture_edges(self.frame.colour)[..., None]

    def edge_occlusion(self) -> np.ndarray:
        """Depth discontinuities (H, W, 1) float32 in [0, 1]."""
        return domains.occlusion_edges(self.frame.depth)[..., None]

    def principal_curvature(self) -> np.ndarray:
        """Principal curvatures (H, W, 2) float32 in 1/m, the larger first, convex positive."""
        return self.frame.curvature

    def segment_semantic(self) -> np.ndarray:
        """Class map (H, W, 1) uint8."""
        return self.frame.labels[..., None]


DOMAINS: dict[str, Callable[[Shot], np.ndarray]] = {
    'rgb': Shot.rgb,
    'depth_euclidean': Shot.depth_euclidean,
    'depth_zbuffer': Shot.depth_zbuffer,
    'normal': Shot.normal,
    'reshading': Shot.reshading,
    'edge_texture': Shot.edge_texture,
    'edge_occlusion': Shot.edge_occlusion,
    'principal_curvature': Shot.principal_curvature,
    'segment_semantic': Shot.segment_semantic,
}
