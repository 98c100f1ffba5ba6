"""Contents of a room: surfaces with a class and a paint.

Four kinds of wall and floor items make the classes a matter of *two* senses:

=========  ===============  ===================  =============================================
class      colour shows it  depth shows it       how
=========  ===============  ===================  =============================================
picture    yes              no                   a decal: paint on the wall
rug        yes              no                   a decal on the floor
cabinet    no               yes                  a panel with the paint of the wall behind it
screen     as a picture     as a cabinet         a panel with a picture on it
=========  ===============  ===================  =============================================

Boxes, balls and pillars show in both. World frame: see ``shapes``; the camera is its origin.
"""

from dataclasses import dataclass

import numpy as np

from .shapes import Array, Box, Shape, column, face_coordinates, reciprocal
from .textures import Texture

CLASSES = (
    'wall',
    'floor',
    'ceiling',
    'box',
    'ball',
    'pillar',
    'picture',
    'rug',
    'cabinet',
    'screen',
)
LABELS = {name: label for label, name in enumerate(CLASSES)}
# Faces of the room: 2 * axis + (1 if on the positive side); y points down.
FLOOR = 3
FACE_CLASSES = ('wall', 'wall', 'ceiling', 'floor', 'wall', 'wall')


@dataclass(frozen=True)
class Paint:
    """What the light meets at some pixels: albedo, points and unit normals, each (3, N)."""

    albedo: Array
    points: Array
    normals: Array


@dataclass(frozen=True)
class Decal:
    """A flat rectangle or ellipse painted on a face of the room, without depth.

    ``centre`` and ``half`` are in the coordinates of the face (``face_coordinates``), metres.
    """

    face: int
    label: int
    centre: tuple[float, float]
    half: tuple[float, float]
    texture: Texture
    round: bool = False

    def covers(self, points: Array) -> Array:
        """Whether it covers points (3, N) of its face."""
        u, v = face_coordinates(self.face // 2, points)
        u, v = (u - self.centre[0]) / self.half[0], (v - self.centre[1]) / self.half[1]
        return u * u + v * v <= 1 if self.round else np.maximum(np.abs(u), np.abs(v)) <= 1


@dataclass(frozen=True)
class Room:
    """The inside of a box from corner ``low`` to corner ``high``, with decals on its faces."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    textures: tuple[Texture, ...]
    decals: tuple[Decal, ...] = ()

    def leave(self, rays: Array) -> tuple[Array, Array]:
        """Ray parameters and faces (N,) where rays (3, N) from the origin meet the room."""
        low, high = column(self.low), column(self.high)
        inverse = reciprocal(rays)
        ends = np.where(inverse > 0, high, low) * inverse
        axis = np.argmin(ends, axis=0)
        face = 2 * axis + (np.take_along_axis(rays, axis[None], axis=0)[0] > 0)
        return ends.min(axis=0), face.astype(np.int8)

    def plane(self, face: int) -> float:
        """Coordinate of a face along its axis."""
        return (self.low, self.high)[face % 2][face // 2]

    def paint(self, face: int, points: Array) -> Paint:
        """Paint of points on a face, decals included."""
        axis = face // 2
        albedo = self.textures[face](*face_coordinates(axis, points))
        for decal in self.decals:
            if decal.face == face:
                inside = np.flatnonzero(decal.covers(points))
                u, v = face_coordinates(axis, points[:, inside])
                albedo[:, inside] = decal.texture(u, v)
        return Paint(albedo, points, face_normals(face, points))


@dataclass(frozen=True)
class Solid:
    """An ordinary object: painted all around, shaded by its own form, throws a shadow."""

    shape: Shape
    label: int
    texture: Texture
    shadow: bool = True

    def paint(self, points: Array) -> Paint:
        """Paint of points on its surface."""
        albedo = self.texture(*self.shape.texture_coordinates(points))
        return Paint(albedo, points, self.shape.normals(points))


@dataclass(frozen=True)
class Panel:
    """A box on a wall whose paint lies in one plane, whatever its depth: form without shading.

    Each pixel looks as the point where its ray meets ``plane`` does. With the wall's own plane
    and texture, nothing in the colour image tells the panel from the wall, sides included.
    """

    shape: Box
    label: int
    texture: Texture
    face: int
    plane: float
    shadow: bool = False

    def paint(self, points: Array) -> Paint:
        """Paint of points on its surface: moved along their rays (the camera is the origin)."""
        axis = self.face // 2
        moved = points * (np.float32(self.plane) * reciprocal(points[axis]))
        albedo = self.texture(*face_coordinates(axis, moved))
        return Paint(albedo, moved, face_normals(self.face, moved))


def face_normals(face: int, points: Array) -> Array:
    """Normals (3, N) of a face of the room, into the room."""
    normals = np.zeros_like(points)
    normals[face // 2] = -1 if face % 2 else 1
    return normals


@dataclass(frozen=True)
class Scene:
    """A room, its objects, a point light, and the camera's orientation.

    Attributes:
        room: Room around the camera.
        items: Solids and panels.
        light: Position in metres.
        rotation: (3, 3) float32, takes the camera frame to the world frame.
        ambient: Share of the light that comes from everywhere.
    """

    room: Room
    items: tuple[Solid | Panel, ...]
    light: tuple[float, float, float]
    rotation: Array
    ambient: float = 0.45
