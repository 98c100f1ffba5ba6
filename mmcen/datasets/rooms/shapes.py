"""Shapes that rays meet: box, sphere, upright cylinder.

World frame: x right, y *down*, z forward, metres, gravity along +y. Vectors are component arrays
(3, N) float32. A shape answers four questions: where does a ray enter, and at points of its
surface, what are the normal, the curvature and the texture coordinates.

Only operations that IEEE 754 rounds exactly (no sine, no arctangent, no einsum, no BLAS): numpy
picks a vectorised or a scalar version of the others by how the arrays lie in memory, and a scene
would not come out the same to the last bit.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Array = np.ndarray
START = np.float32(1e-3)  # in units of the ray: what is nearer than this is the ray's own origin


class Shape(Protocol):
    """What the renderer asks of a convex solid."""

    def enter(self, origin: Array, rays: Array) -> Array:
        """Ray parameter (N,) at which the rays (3, N) from (3, 1) or (3, N) enter; inf = miss."""

    def normals(self, points: Array) -> Array:
        """Outward unit normals (3, N) at surface points (3, N)."""

    def curvature(self, points: Array) -> Array:
        """Principal curvatures (2, N) in 1/m, the larger first."""

    def texture_coordinates(self, points: Array) -> tuple[Array, Array]:
        """Surface coordinates (N,), (N,) in metres."""


def column(vector: tuple[float, float, float]) -> Array:
    """A vector as (3, 1) float32."""
    return np.array(vector, np.float32)[:, None]


def dot(a: Array, b: Array) -> Array:
    """Scalar products (N,) of vectors (3, N) or (3, 1)."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def rotate(matrix: Array, vectors: Array) -> Array:
    """Matrix (3, 3) times vectors (3, N)."""
    return np.stack([dot(row, vectors) for row in matrix])


def around(x: Array, z: Array) -> Array:
    """Position (N,) on a unit circle of the direction (x, z), from -pi to pi.

    The angle's stand-in without an arctangent: linear along a diamond, off by 4 degrees at most.
    """
    quarter = x / np.maximum(np.abs(x) + np.abs(z), np.float32(1e-9))
    half = np.where(z < 0, np.copysign(np.float32(2), x) - quarter, quarter)
    return half * np.float32(math.pi / 2)


def reciprocal(x: Array) -> Array:
    """1 / x, with zeros moved to a tiny number: rays parallel to a face stay finite."""
    return 1 / np.where(np.abs(x) < 1e-9, np.float32(1e-9), x)


def face_coordinates(axis: int, points: Array) -> tuple[Array, Array]:
    """The two coordinates along a face that is perpendicular to ``axis``; y is never the first."""
    along = {0: (2, 1), 1: (0, 2), 2: (0, 1)}[axis]
    return points[along[0]], points[along[1]]


@dataclass(frozen=True)
class Box:
    """Box with half sizes ``half``, turned by ``yaw`` (radians) about its vertical axis."""

    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    yaw: float = 0.0

    def _turn(self, vectors: Array, sign: int) -> Array:
        """World to box frame (sign 1) or back (sign -1)."""
        if self.yaw == 0:
            return vectors
        cos, sin = np.float32(math.cos(self.yaw)), np.float32(sign * math.sin(self.yaw))
        x, y, z = vectors
        return np.stack([cos * x - sin * z, y, sin * x + cos * z])

    def _local(self, points: Array) -> Array:
        return self._turn(points - column(self.centre), 1)

    def _axes(self, points: Array) -> tuple[Array, Array]:
        """Points in the box frame, and the axis (N,) of the face that each lies on."""
        local = self._local(points)
        return local, np.argmax(np.abs(local) / column(self.half), axis=0)

    def enter(self, origin: Array, rays: Array) -> Array:
        """See Shape: slab method."""
        inverse = reciprocal(self._turn(rays, 1))
        middle = -self._local(origin) * inverse
        reach = column(self.half) * np.abs(inverse)
        near = (middle - reach).max(axis=0)
        far = (middle + reach).min(axis=0)
        return np.where((near <= far) & (near > START), near, np.float32(np.inf))

    def normals(self, points: Array) -> Array:
        """See Shape."""
        local, axis = self._axes(points)
        axes = np.arange(3)[:, None]
        return self._turn(np.where(axis == axes, np.sign(local), np.float32(0)), -1)

    def curvature(self, points: Array) -> Array:
        """See Shape: faces are flat."""
        return np.zeros((2, points.shape[1]), np.float32)

    def texture_coordinates(self, points: Array) -> tuple[Array, Array]:
        """See Shape: coordinates along the face."""
        local, axis = self._axes(points)
        faces = np.stack([face_coordinates(k, local) for k in range(3)])  # (3, 2, N)
        u, v = np.take_along_axis(faces, axis[None, None], axis=0)[0]
        return u, v


@dataclass(frozen=True)
class Sphere:
    """Sphere."""

    centre: tuple[float, float, float]
    radius: float

    def enter(self, origin: Array, rays: Array) -> Array:
        """See Shape: from the point of closest approach, which keeps float32 precise."""
        to_centre = column(self.centre) - origin
        inverse = 1 / dot(rays, rays)
        closest = dot(rays, to_centre) * inverse
        miss = to_centre - closest * rays
        slack = np.float32(self.radius**2) - dot(miss, miss)
        near = closest - np.sqrt(np.maximum(slack, 0) * inverse)
        return np.where((slack >= 0) & (near > START), near, np.float32(np.inf))

    def normals(self, points: Array) -> Array:
        """See Shape."""
        return (points - column(self.centre)) / np.float32(self.radius)

    def curvature(self, points: Array) -> Array:
        """See Shape."""
        return np.full((2, points.shape[1]), 1 / self.radius, np.float32)

    def texture_coordinates(self, points: Array) -> tuple[Array, Array]:
        """See Shape: length along the equator, and height."""
        x, y, z = self.normals(points)
        radius = np.float32(self.radius)
        return around(x, z) * radius, y * radius


@dataclass(frozen=True)
class Cylinder:
    """Upright cylinder; ``half_height`` is half its length."""

    centre: tuple[float, float, float]
    radius: float
    half_height: float

    def enter(self, origin: Array, rays: Array) -> Array:
        """See Shape: the side as a circle seen from above, then the two caps."""
        x, y, z = column(self.centre) - origin
        dx, dy, dz = rays
        half, square = np.float32(self.half_height), np.float32(self.radius**2)
        inverse = reciprocal(dx * dx + dz * dz)
        closest = (dx * x + dz * z) * inverse
        slack = square - (x - closest * dx) ** 2 - (z - closest * dz) ** 2
        side = closest - np.sqrt(np.maximum(slack, 0) * inverse)
        on_side = (slack >= 0) & (np.abs(side * dy - y) <= half)
        cap = (y - np.sign(dy) * half) * reciprocal(dy)
        on_cap = (cap * dx - x) ** 2 + (cap * dz - z) ** 2 <= square
        infinite = np.float32(np.inf)
        side = np.where(on_side & (side > START), side, infinite)
        cap = np.where(on_cap & (cap > START), cap, infinite)
        return np.minimum(side, cap)

    def _split(self, points: Array) -> tuple[Array, Array]:
        """Points relative to the centre, and whether they lie on a cap rather than the side."""
        local = points - column(self.centre)
        below_edge = self.radius - np.sqrt(local[0] ** 2 + local[2] ** 2)
        return local, np.abs(np.abs(local[1]) - self.half_height) < np.abs(below_edge)

    def normals(self, points: Array) -> Array:
        """See Shape."""
        local, cap = self._split(points)
        length = np.maximum(np.sqrt(local[0] ** 2 + local[2] ** 2), np.float32(1e-9))
        x, z = np.where(cap, np.float32(0), local[0::2] / length)
        return np.stack([x, np.where(cap, np.sign(local[1]), np.float32(0)), z])

    def curvature(self, points: Array) -> Array:
        """See Shape: curved around, straight along, flat on the caps."""
        _, cap = self._split(points)
        larger = np.where(cap, 0, 1 / self.radius).astype(np.float32)
        return np.stack([larger, np.zeros_like(larger)])

    def texture_coordinates(self, points: Array) -> tuple[Array, Array]:
        """See Shape: unrolled side; on a cap its plan."""
        local, cap = self._split(points)
        along = around(local[0], local[2]) * np.float32(self.radius)
        return np.where(cap, local[0], along), np.where(cap, local[2], local[1])
