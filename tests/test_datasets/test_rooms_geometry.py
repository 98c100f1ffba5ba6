"""The ray-caster against closed forms in double precision, and the scenes' two promises."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmcen.datasets import domains
from mmcen.datasets.rooms.renderer import RenderedFrame, intrinsics
from mmcen.datasets.rooms.sampler import look, sample_scene
from mmcen.datasets.rooms.scene import LABELS, Decal, Panel, Room, Scene, Solid
from mmcen.datasets.rooms.sensor import Sensor
from mmcen.datasets.rooms.shapes import Box, Cylinder, Shape, Sphere
from mmcen.datasets.rooms.textures import Texture, fractal_noise

SIZE = (61, 81)  # odd: the principal point is a pixel, (30, 40)
GREY = Texture('plain', ((0.7, 0.7, 0.7), (0.7, 0.7, 0.7)), grain=0)
RED = Texture('checker', ((0.8, 0.1, 0.1), (0.3, 0.1, 0.1)), period=0.3)
ROOM = Room((-2, -1.3, -1.5), (2, 1.2, 4), (GREY,) * 6)
WALL = 5  # the wall z = 4


def scene(*items: Solid | Panel, decals: tuple[Decal, ...] = (), yaw: float = 0) -> Scene:
    """A grey room with these things in it."""
    room = Room(ROOM.low, ROOM.high, ROOM.textures, decals)
    return Scene(room, items, (0.5, -0.8, 1.0), look(yaw, 0))


def neighbours(a: np.ndarray, b: np.ndarray) -> tuple[tuple, tuple]:
    """Indices of all pairs of a pixel in mask ``a`` and its 4-neighbour in mask ``b``."""
    pixels, others = [], []
    for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
        y, x = np.nonzero(a & np.roll(b, -shift, axis))
        y2, x2 = (y + shift, x) if axis == 0 else (y, x + shift)
        inside = (y2 >= 0) & (y2 < a.shape[0]) & (x2 >= 0) & (x2 < a.shape[1])
        pixels.append((y[inside], x[inside]))
        others.append((y2[inside], x2[inside]))
    return tuple(np.hstack(pixels)), tuple(np.hstack(others))


def test_plane_depth_and_normals() -> None:
    frame = RenderedFrame(scene(), *SIZE)
    assert frame.depth[30, 40] == pytest.approx(4, abs=1e-4)
    wall = np.abs(frame.normals @ np.float32([0, 0, -1]) - 1) < 1e-6
    assert wall.mean() > 0.3
    np.testing.assert_allclose(frame.depth[wall], 4, atol=1e-4)
    turned = RenderedFrame(scene(yaw=0.5), *SIZE)
    # the wall z = 4 in the camera frame: its normal, and z = 4 / (n . ray)
    normal = np.array([np.sin(0.5), 0, -np.cos(0.5)])
    rays = domains.pixel_rays(*SIZE, intrinsics(*SIZE)).astype(np.float64)
    wall = np.abs(turned.normals @ normal - 1) < 1e-5
    assert wall.mean() > 0.2
    np.testing.assert_allclose(turned.depth[wall], (-4 / (rays @ normal))[wall], atol=1e-4)


def test_sphere_depth_normals_and_curvature() -> None:
    centre, radius = np.array([0.0, 0.0, 3.0]), 0.5
    frame = RenderedFrame(scene(Solid(Sphere((0, 0, 3), radius), LABELS['ball'], RED)), *SIZE)
    assert frame.depth[30, 40] == pytest.approx(2.5, abs=1e-4)
    np.testing.assert_allclose(frame.normals[30, 40], [0, 0, -1], atol=1e-6)
    rays = domains.pixel_rays(*SIZE, intrinsics(*SIZE)).astype(np.float64)
    a, b, c = (rays**2).sum(-1), rays @ centre, centre @ centre - radius**2
    on = frame.labels == LABELS['ball']
    np.testing.assert_array_equal(on, b * b - a * c > 0)
    depth = (b - np.sqrt(np.maximum(b * b - a * c, 0))) / a
    np.testing.assert_allclose(frame.depth[on], depth[on], atol=1e-4)
    normals = (depth[..., None] * rays - centre) / radius
    np.testing.assert_allclose(frame.normals[on], normals[on], atol=1e-3)
    np.testing.assert_allclose(frame.curvature[on], 1 / radius, rtol=1e-6)
    assert not frame.curvature[~on].any()


def distance(shape: Shape, p: np.ndarray) -> np.ndarray:
    """Signed distance-like function of a shape, < 0 inside, in double precision, (N,)."""
    return of_faces(shape, p).max(axis=0)


def of_faces(shape: Shape, p: np.ndarray) -> np.ndarray:
    """Signed distances to the faces of a convex shape, (faces, N)."""
    x, y, z = p - np.array(shape.centre)[:, None]
    if isinstance(shape, Sphere):
        return (np.sqrt(x * x + y * y + z * z) - shape.radius)[None]
    if isinstance(shape, Cylinder):
        return np.stack([np.hypot(x, z) - shape.radius, np.abs(y) - shape.half_height])
    cos, sin = np.cos(shape.yaw), np.sin(shape.yaw)
    local = np.stack([cos * x - sin * z, y, sin * x + cos * z])
    return np.abs(local) - np.array(shape.half)[:, None]


coordinates = st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(2, 5))
lengths = st.floats(0.2, 0.8)
shapes = st.one_of(
    st.builds(Sphere, coordinates, lengths),
    st.builds(Cylinder, coordinates, lengths, lengths),
    st.builds(Box, coordinates, st.tuples(lengths, lengths, lengths), st.floats(0, 3)),
)


@settings(max_examples=60, deadline=None)
@given(shapes)
@example(Box((0.75, 0.0, 2.0), (0.5, 0.75, 0.5)))  # two rays graze an edge
def test_rays_enter_shapes_at_the_first_point_of_their_surface(shape: Shape) -> None:
    rays = domains.pixel_rays(24, 32, intrinsics(24, 32)).reshape(-1, 3).T
    entered = shape.enter(np.zeros((3, 1), np.float32), rays)
    hit = np.isfinite(entered)
    points = (rays * entered)[:, hit].astype(np.float32)
    np.testing.assert_allclose(distance(shape, points), 0, atol=2e-3)
    steps = np.linspace(0, 1, 40)[:, None]  # no earlier point is inside, and none of a miss
    before = steps[:-1] * entered[hit]
    for along, some in ((before, rays[:, hit]), (steps * 8, rays[:, ~hit])):
        inside = [distance(shape, some * t) for t in along]
        assert not inside or np.min(inside, initial=0) > -2e-3
    normals = shape.normals(points)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=0), 1, atol=1e-3)
    # a ray that grazes an edge may get the normal of the other face
    on_edge = (of_faces(shape, points) > -1e-4).sum(axis=0) > 1
    facing = np.einsum('cn,cn->n', normals, rays[:, hit])
    assert facing[~on_edge].max(initial=-1) < 1e-2
    outward = distance(shape, points + 1e-2 * normals) - distance(shape, points - 1e-2 * normals)
    assert (outward > 0).all()


def test_derived_domains_agree_with_the_analytic_ones() -> None:
    frame = RenderedFrame(sample_scene(np.random.default_rng(3)), 240, 320)
    normals = domains.normals_from_depth(frame.depth, frame.intrinsics)
    cosine = (normals * frame.normals).sum(-1)
    assert (cosine > 0.999).mean() > 0.96  # the rest: creases and limbs
    np.testing.assert_allclose(np.linalg.norm(frame.normals, axis=-1), 1, atol=1e-4)
    facing = (frame.normals * domains.pixel_rays(240, 320, frame.intrinsics)).sum(-1)
    assert facing.max() < 1e-2
    points = domains.backproject(frame.depth, frame.intrinsics)
    curvature = domains.principal_curvature(frame.normals, points)
    for name in ('ball', 'pillar', 'floor'):
        on = frame.labels == LABELS[name]
        assert on.sum() > 1000, name
        close = np.abs(curvature - frame.curvature)[on] < 0.1 + 0.1 * frame.curvature[on]
        assert close.all(-1).mean() > 0.85, name


def test_a_cabinet_shows_in_depth_and_not_in_colour() -> None:
    box = Box((1.2, 0, 3.75), (0.4, 0.4, 0.25))
    cabinet = Panel(box, LABELS['cabinet'], GREY, WALL, 4)
    frame, bare = (
        RenderedFrame(scene(cabinet, yaw=0.4), 96, 128),
        RenderedFrame(scene(yaw=0.4), 96, 128),
    )
    on = frame.labels == LABELS['cabinet']
    assert on.sum() > 500
    a, b = neighbours(on, frame.labels == LABELS['wall'])
    assert len(a[0]) > 60
    step = np.abs(frame.colour[a] - frame.colour[b]).max()
    assert step < 0.2 * Sensor().colour_noise
    np.testing.assert_allclose(frame.colour, bare.colour, atol=1e-5)
    # the depth jumps all around by far more than its noise, here 3 cm at 4 m
    assert np.quantile(np.abs(frame.depth[a] - frame.depth[b]), 0.25) > 0.2
    # its sides are seen too, and are no plainer
    side = on & (np.abs(frame.normals @ np.float32([np.sin(0.4), 0, -np.cos(0.4)])) < 0.1)
    assert side.sum() > 20


def test_pictures_and_rugs_show_in_colour_and_not_in_depth() -> None:
    decals = (
        Decal(WALL, LABELS['picture'], (0.2, 0), (0.6, 0.4), RED),
        Decal(3, LABELS['rug'], (0, 2.5), (0.8, 0.4), RED, round=True),
    )
    frame, bare = RenderedFrame(scene(decals=decals), 96, 128), RenderedFrame(scene(), 96, 128)
    np.testing.assert_array_equal(frame.depth, bare.depth)
    np.testing.assert_array_equal(frame.normals, bare.normals)
    for name, ground in (('picture', 'wall'), ('rug', 'floor')):
        on = frame.labels == LABELS[name]
        a, b = neighbours(on, frame.labels == LABELS[ground])
        assert len(a[0]) > 60, name
        assert not domains.occlusion_edges(frame.depth, 1e-3)[a].any(), name
        step = np.abs(frame.colour[a] - frame.colour[b]).max(axis=-1)
        assert step.min() > 3 * Sensor().colour_noise, name


def test_a_screen_is_a_picture_in_colour_and_a_cabinet_in_depth() -> None:
    box = Box((0.3, 0, 3.8), (0.6, 0.4, 0.2))
    screen = RenderedFrame(scene(Panel(box, LABELS['screen'], RED, WALL, 3.6)), 96, 128)
    cabinet = RenderedFrame(scene(Panel(box, LABELS['cabinet'], GREY, WALL, 4)), 96, 128)
    np.testing.assert_array_equal(screen.depth, cabinet.depth)
    on = screen.labels == LABELS['screen']
    a, b = neighbours(on, screen.labels == LABELS['wall'])
    step = np.abs(screen.colour[a] - screen.colour[b]).max(axis=-1)
    assert step.min() > 3 * Sensor().colour_noise


@pytest.mark.parametrize('number', range(12))
def test_the_promise_holds_in_random_scenes(number: int) -> None:
    """Without its cabinets a scene looks the same wherever the same wall is behind them."""
    full = sample_scene(np.random.default_rng([7, number]))
    rest = tuple(item for item in full.items if item.label != LABELS['cabinet'])
    bare = Scene(full.room, rest, full.light, full.rotation, full.ambient)
    frame, without = RenderedFrame(full, 96, 128), RenderedFrame(bare, 96, 128)
    elsewhere = frame.labels != LABELS['cabinet']
    np.testing.assert_allclose(frame.colour[elsewhere], without.colour[elsewhere], atol=1e-6)
    for item in full.items:
        if item.label == LABELS['cabinet']:
            normal = np.zeros(3, np.float32)
            normal[item.face // 2] = -1 if item.face % 2 else 1
            behind = np.abs(without.normals @ (full.rotation.T @ normal) - 1) < 1e-5
            behind &= without.labels == LABELS['wall']
            alone = RenderedFrame(Scene(full.room, (item,), full.light, full.rotation), 96, 128)
            hidden = behind & (np.abs(frame.depth - alone.depth) < 1e-6)
            hidden &= alone.labels == LABELS['cabinet']
            differs = np.abs(frame.colour - without.colour).max(axis=-1) > 1e-3
            # float rounding may move a shadow's hard border by a pixel
            assert (hidden & differs).sum() <= 0.01 * hidden.sum()


def test_texture_errors_and_ranges() -> None:
    u = np.linspace(-9, 9, 500, dtype=np.float32)
    for kind in ('plain', 'noise', 'checker', 'stripes'):
        albedo = Texture(kind, ((0.2, 0.3, 0.4), (0.9, 0.8, 0.7)), angle=0.4)(u, u[::-1])
        assert albedo.shape == (3, 500)
        assert albedo.dtype == np.float32
        assert albedo.min() > 0.15
        assert albedo.max() <= 0.9 + 1e-6
    np.testing.assert_allclose(fractal_noise(u + 1, u), fractal_noise(u, u), atol=2e-3)
    with pytest.raises(ValueError, match=r"kind must be one of .*, got 'tartan'"):
        Texture('tartan', GREY.colours)(u, u)
