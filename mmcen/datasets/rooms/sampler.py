"""Draw a random scene from a generator."""

import colorsys
import math

import numpy as np

from .scene import (
    FACE_CLASSES,
    FLOOR,
    LABELS,
    Decal,
    Panel,
    Room,
    Scene,
    Solid,
)
from .shapes import Box, Cylinder, Shape, Sphere, column, face_coordinates, rotate
from .textures import Texture

Vector = tuple[float, float, float]


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw a room seen from a standing or sitting height, with some objects."""
    eye = rng.uniform(1.1, 1.6)
    low = (-rng.uniform(1.6, 3.0), eye - rng.uniform(2.4, 2.9), -1.5)
    high = (rng.uniform(1.6, 3.0), eye, rng.uniform(3.2, 5.2))
    yaw, pitch = rng.uniform(-0.55, 0.55), rng.uniform(0.0, 0.3)
    room = Room(low, high, _room_textures(rng))
    decals, panels = _wall_items(rng, room, yaw, pitch)
    solids = _floor_items(rng, room, yaw)
    if rng.random() < 0.8:
        decals.append(_rug(rng, room, yaw))
    light = (rng.uniform(-1.0, 1.0), low[1] + 0.5, rng.uniform(0.2, 2.0))
    room = Room(low, high, room.textures, tuple(decals))
    return Scene(room, (*panels, *solids), light, look(yaw, pitch), rng.uniform(0.45, 0.6))


def look(yaw: float, pitch: float) -> np.ndarray:
    """Camera to world rotation (3, 3) float32: yaw to the right, then pitch down, in radians."""
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    return np.array([[cy, -sy * sp, sy * cp], [0, cp, sp], [-sy, -cy * sp, cy * cp]], np.float32)


def _colour(rng: np.random.Generator, saturation: float, value: tuple[float, float]) -> Vector:
    """A random colour of at most that saturation and of a brightness in that range."""
    return colorsys.hsv_to_rgb(rng.random(), saturation * rng.random(), rng.uniform(*value))


def _texture(
    rng: np.random.Generator,
    kinds: tuple[str, ...],
    colours: tuple[Vector, Vector],
    period: tuple[float, float],
    grain: float = 0.15,
) -> Texture:
    shift = (rng.uniform(0, 4), rng.uniform(0, 4))
    angle = rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)])
    kind = str(rng.choice(kinds))
    return Texture(kind, colours, rng.uniform(*period), float(angle), shift, grain)


def _fade(colour: Vector, factor: float) -> Vector:
    """The same hue, darker by ``factor``."""
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def _room_textures(rng: np.random.Generator) -> tuple[Texture, ...]:
    """Pale walls of one paint, a floor of boards, tiles or carpet, a nearly white ceiling."""
    pale = _colour(rng, 0.3, (0.7, 0.95))
    walls = _texture(rng, ('plain', 'noise', 'stripes'), (pale, _fade(pale, 0.9)), (0.2, 0.6))
    brown = _colour(rng, 0.5, (0.4, 0.75))
    kinds = ('checker', 'stripes', 'noise')
    floor = _texture(rng, kinds, (brown, _fade(brown, 0.8)), (0.25, 0.6))
    white = _colour(rng, 0.08, (0.85, 0.98))
    ceiling = _texture(rng, ('plain',), (white, white), (1, 1), grain=0.05)
    paints = {'wall': walls, 'floor': floor, 'ceiling': ceiling}
    return tuple(paints[name] for name in FACE_CLASSES)


def _vivid(rng: np.random.Generator) -> Texture:
    """Draw a texture for pictures, screens and rugs, which do not differ in texture."""
    colours = (_colour(rng, 0.8, (0.15, 0.95)), _colour(rng, 0.8, (0.15, 0.95)))
    return _texture(rng, ('noise', 'checker', 'stripes'), colours, (0.25, 0.8))


def _wall_items(
    rng: np.random.Generator, room: Room, yaw: float, pitch: float
) -> tuple[list[Decal], list[Panel]]:
    """Two to four of picture, cabinet and screen, where the camera looks, none over another."""
    decals: list[Decal] = []
    panels: list[Panel] = []
    taken: list[tuple[int, np.ndarray, np.ndarray]] = []
    wanted = rng.integers(2, 5)
    for _ in range(30):
        if len(taken) == wanted:
            break
        face, centre = _aim(rng, room, yaw, pitch)
        half = np.array([rng.uniform(0.3, 0.75), rng.uniform(0.25, 0.6)])
        if FACE_CLASSES[face] != 'wall' or not _free(room, face, centre, half, taken):
            continue
        taken.append((face, centre, half))
        kind = rng.choice(['picture', 'cabinet', 'screen'])
        if kind == 'picture':
            u, v = float(centre[0]), float(centre[1])
            extent = (float(half[0]), float(half[1]))
            decals.append(Decal(face, LABELS[kind], (u, v), extent, _vivid(rng)))
        else:
            panels.append(_panel(rng, room, str(kind), face, centre, half))
    return decals, panels


def _aim(rng: np.random.Generator, room: Room, yaw: float, pitch: float) -> tuple[int, np.ndarray]:
    """Face and face coordinates (2,) where a random ray of the view meets the room."""
    aside, down = rng.uniform(-0.5, 0.5), rng.uniform(-0.35, 0.3)
    ray = rotate(look(yaw, pitch), column((aside, down, 1)))
    reach, face = room.leave(ray)
    return int(face[0]), np.array(face_coordinates(int(face[0]) // 2, ray * reach))[:, 0]


def _free(
    room: Room,
    face: int,
    centre: np.ndarray,
    half: np.ndarray,
    taken: list[tuple[int, np.ndarray, np.ndarray]],
) -> bool:
    """Whether a rectangle fits on a wall, with a margin to its borders and its neighbours."""
    margin = 0.1
    low = np.array(face_coordinates(face // 2, np.array(room.low))) + margin
    high = np.array(face_coordinates(face // 2, np.array(room.high))) - margin
    inside = bool(np.all(centre - half >= low) and np.all(centre + half <= high))
    # items of one wall keep clear of each other; a panel's sides reach beyond its foot
    return inside and all(
        face != other or np.any(np.abs(centre - middle) > half + extent + margin)
        for other, middle, extent in taken
    )


def _panel(
    rng: np.random.Generator,
    room: Room,
    kind: str,
    face: int,
    centre: np.ndarray,
    half: np.ndarray,
) -> Panel:
    """A cabinet (painted as its wall, on the wall's plane) or a screen (painted on its front)."""
    wall, inward = room.plane(face), -1 if face % 2 else 1
    thickness = rng.uniform(0.2, 0.5)
    front = wall + inward * thickness
    axis = face // 2
    middle, extent = [0.0] * 3, [0.0] * 3
    middle[axis], extent[axis] = (wall + front) / 2, thickness / 2
    along = 2 if axis == 0 else 0
    middle[along], extent[along] = float(centre[0]), float(half[0])
    middle[1], extent[1] = float(centre[1]), float(half[1])
    box = Box((middle[0], middle[1], middle[2]), (extent[0], extent[1], extent[2]))
    texture = room.textures[face] if kind == 'cabinet' else _vivid(rng)
    return Panel(box, LABELS[kind], texture, face, wall if kind == 'cabinet' else front)


def _floor_place(
    rng: np.random.Generator, room: Room, yaw: float, radius: float
) -> tuple[float, float]:
    """A place (x, z) on the floor in view, at least ``radius`` from the walls."""
    distance, angle = rng.uniform(1.8, 4.0), yaw + rng.uniform(-0.5, 0.5)
    x = np.clip(distance * math.sin(angle), room.low[0] + radius, room.high[0] - radius)
    z = np.clip(distance * math.cos(angle), 1.2, room.high[2] - radius)
    return float(x), float(z)


def _floor_items(rng: np.random.Generator, room: Room, yaw: float) -> list[Solid]:
    """Two to five boxes, balls and pillars that do not touch."""
    solids: list[Solid] = []
    taken: list[tuple[float, float, float]] = []
    wanted = rng.integers(2, 6)
    for _ in range(30):
        if len(solids) == wanted:
            break
        kind = str(rng.choice(['box', 'ball', 'pillar']))
        size = rng.uniform(0.2, 0.45)
        radius = size * 1.5 if kind == 'box' else size
        x, z = _floor_place(rng, room, yaw, radius + 0.02)
        if any(math.hypot(x - a, z - b) < radius + r + 0.05 for a, b, r in taken):
            continue
        taken.append((x, z, radius))
        colours = (_colour(rng, 0.7, (0.3, 0.95)), _colour(rng, 0.7, (0.3, 0.95)))
        texture = _texture(rng, ('plain', 'noise', 'checker', 'stripes'), colours, (0.2, 0.6))
        shape = _shape(rng, kind, size, (x, room.high[1], z))
        solids.append(Solid(shape, LABELS[kind], texture))
    return solids


def _shape(rng: np.random.Generator, kind: str, size: float, foot: Vector) -> Shape:
    """A box, ball or pillar that stands on the floor at ``foot``."""
    x, floor, z = foot
    if kind == 'ball':
        return Sphere((x, floor - size, z), size)
    if kind == 'pillar':
        half = rng.uniform(0.3, 0.8)
        return Cylinder((x, floor - half, z), size * 0.8, half)
    half = rng.uniform(0.15, 0.5)
    extent = (size, half, size * rng.uniform(0.7, 1.1))
    return Box((x, floor - half, z), extent, rng.uniform(0, np.pi))


def _rug(rng: np.random.Generator, room: Room, yaw: float) -> Decal:
    half = (rng.uniform(0.5, 1.1), rng.uniform(0.4, 0.9))
    centre = _floor_place(rng, room, yaw, max(half))
    return Decal(FLOOR, LABELS['rug'], centre, half, _vivid(rng), bool(rng.random() < 0.4))
