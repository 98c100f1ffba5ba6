"""Ray-caster: one scene, one camera, every domain. Float32, component arrays, no I/O."""

from functools import cached_property

import numpy as np

from .. import domains
from .scene import FACE_CLASSES, LABELS, Paint, Panel, Scene, Solid, face_normals
from .shapes import Array, column, dot, rotate

FOCAL = 0.8  # focal length in image widths: 64 degrees across, as a Kinect
SHADOW = 0.35  # share of the direct light in a shadow


def intrinsics(height: int, width: int) -> Array:
    """Pinhole matrix (3, 3) of the synthetic camera: square pixels, centred."""
    focal = FOCAL * width
    matrix = [[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]
    return np.array(matrix, np.float32)


class RenderedFrame:
    """One view of a scene, without noise. Each domain is computed at its first use.

    Args:
        scene: What to render.
        height, width: In pixels.
    """

    def __init__(self, scene: Scene, height: int, width: int) -> None:
        self.scene = scene
        self.shape = (height, width)
        self.intrinsics = intrinsics(height, width)
        rays = domains.pixel_rays(height, width, self.intrinsics).reshape(-1, 3)
        # (3, H*W); z = 1 in the camera frame, so the ray parameter is z depth
        self._rays = rotate(scene.rotation, np.ascontiguousarray(rays.T))
        self._depth, self._owner = scene.room.leave(self._rays)
        origin = np.zeros((3, 1), np.float32)
        for number, item in enumerate(scene.items, start=len(FACE_CLASSES)):
            entered = item.shape.enter(origin, self._rays)
            closer = entered < self._depth
            self._depth[closer] = entered[closer]
            self._owner[closer] = number

    @property
    def depth(self) -> Array:
        """Z depth (H, W) float32 in metres."""
        return self._depth.reshape(self.shape)

    @cached_property
    def _surfaces(self) -> list[tuple[int, Array, Array]]:
        """(owner, its pixels (N,), their points (3, N)) of every visible surface."""
        surfaces = []
        for owner in range(len(FACE_CLASSES) + len(self.scene.items)):
            pixels = np.flatnonzero(self._owner == owner)
            if pixels.size:
                surfaces.append((owner, pixels, self._rays[:, pixels] * self._depth[pixels]))
        return surfaces

    @cached_property
    def labels(self) -> Array:
        """Class map (H, W) uint8."""
        classes = [LABELS[name] for name in FACE_CLASSES]
        classes += [item.label for item in self.scene.items]
        labels = np.array(classes, np.uint8)[self._owner]
        for face, pixels, points in self._surfaces:
            for decal in self.scene.room.decals:
                if decal.face == face:
                    labels[pixels[decal.covers(points)]] = decal.label
        return labels.reshape(self.shape)

    @cached_property
    def normals(self) -> Array:
        """Normals (H, W, 3) float32 in the camera frame, facing the camera."""
        normals = np.empty_like(self._rays)
        for owner, pixels, points in self._surfaces:
            if owner < len(FACE_CLASSES):
                normals[:, pixels] = face_normals(owner, points)
            else:
                normals[:, pixels] = self._item(owner).shape.normals(points)
        in_camera = rotate(self.scene.rotation.T, normals)
        return np.ascontiguousarray(in_camera.T).reshape(*self.shape, 3)

    @cached_property
    def curvature(self) -> Array:
        """Principal curvatures (H, W, 2) float32 in 1/m, the larger first, analytic."""
        curvature = np.zeros((2, self._depth.size), np.float32)
        for owner, pixels, points in self._surfaces:
            if owner >= len(FACE_CLASSES):
                curvature[:, pixels] = self._item(owner).shape.curvature(points)
        return np.ascontiguousarray(curvature.T).reshape(*self.shape, 2)

    @cached_property
    def colour(self) -> Array:
        """Colour (H, W, 3) float32 in [0, 1]: albedo times ambient and diffuse light."""
        colour = np.empty_like(self._rays)
        for owner, pixels, points in self._surfaces:
            if owner < len(FACE_CLASSES):
                paint = self.scene.room.paint(owner, points)
            else:
                paint = self._item(owner).paint(points)
            colour[:, pixels] = paint.albedo * self._light(paint)
        np.clip(colour, 0, 1, out=colour)
        return np.ascontiguousarray(colour.T).reshape(*self.shape, 3)

    def _item(self, owner: int) -> Solid | Panel:
        return self.scene.items[owner - len(FACE_CLASSES)]

    def _light(self, paint: Paint) -> Array:
        """Light (N,) on painted points: ambient, and diffuse from the lamp, with hard shadows."""
        towards = column(self.scene.light) - paint.points
        square = dot(towards, towards)
        facing = dot(towards, paint.normals)
        # 1 / (1 + d^2 / r^2) with r of a room's size: near and far walls stay in range
        diffuse = np.maximum(facing, 0) / np.sqrt(square) / (1 + square / 30)
        for item in self.scene.items:
            if item.shadow:
                blocked = item.shape.enter(paint.points, towards) < 1
                diffuse[blocked] *= SHADOW
        ambient = self.scene.ambient
        return ambient + np.float32(1.6 * (1 - ambient)) * diffuse
