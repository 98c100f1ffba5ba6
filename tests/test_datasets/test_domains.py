"""Derived domains against planes, spheres and steps of known geometry."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mmcen.datasets import domains

K = np.array([[50, 0, 31.5], [0, 55, 23.5], [0, 0, 1]], np.float64)
SIZE = (48, 64)


def rays() -> np.ndarray:
    """Viewing rays (H, W, 3), written independently of the module."""
    v, u = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.linalg.inv(K) @ np.stack([u, v, np.ones_like(u)]).reshape(3, -1)


def plane(normal: np.ndarray, distance: float) -> np.ndarray:
    """Depth (H, W) of the plane normal . P = -distance."""
    return (-distance / (normal @ rays())).reshape(SIZE).astype(np.float32)


def sphere(centre: np.ndarray, radius: float, wall: float) -> tuple[np.ndarray, np.ndarray]:
    """Depth (H, W) of a sphere before a wall z = ``wall``, and where the sphere is."""
    d = rays()
    a, b, c = (d * d).sum(0), centre @ d, centre @ centre - radius**2
    root = b * b - a * c
    near = (b - np.sqrt(np.maximum(root, 0))) / a
    return np.where(root > 0, near, wall).reshape(SIZE), (root > 0).reshape(SIZE)


slopes = st.floats(-0.8, 0.8)


@settings(max_examples=30, deadline=None)
@given(slopes, slopes, st.floats(0.5, 8), st.integers(1, 3))
def test_normals_of_any_plane_are_exact(x: float, y: float, distance: float, radius: int) -> None:
    normal = np.array([x, y, -1.5])
    normal /= np.linalg.norm(normal)
    assume((normal @ rays() < -0.2).all())
    found = domains.normals_from_depth(plane(normal, distance), K, radius, jump=1)
    np.testing.assert_allclose(found, np.broadcast_to(normal, (*SIZE, 3)), atol=2e-3)
    assert found.dtype == np.float32


def test_normals_of_a_sphere_and_of_its_wall() -> None:
    centre = np.array([0.2, -0.1, 2.0])
    depth, on = sphere(centre, 0.6, 3.0)
    found = domains.normals_from_depth(depth, K)
    truth = (domains.backproject(depth, K) - centre) / 0.6
    facing = on & (truth @ centre < -1.6)  # away from the limb
    assert facing.sum() > 200
    assert np.rad2deg(np.arccos(np.clip((found * truth).sum(-1)[facing], -1, 1))).max() < 2
    # windows at the occlusion edge keep to their own side
    np.testing.assert_allclose(found[~on] - [0, 0, -1], 0, atol=1e-4)


def test_wider_windows_take_noise_from_normals() -> None:
    rng = np.random.default_rng(0)
    normal = np.array([0.3, 0.2, -0.933])
    normal /= np.linalg.norm(normal)
    depth = plane(normal, 2.0) + rng.normal(0, 0.005, SIZE)
    errors = [
        np.median(1 - domains.normals_from_depth(depth, K, radius) @ normal) for radius in (1, 2, 4)
    ]
    assert errors[0] > 4 * errors[1] > 16 * errors[2]


def test_missing_depth_has_no_normal_and_spoils_no_neighbour() -> None:
    normal = np.array([0.6, 0.0, -0.8])
    depth = plane(normal, 2.0)
    depth[10:13, 20:25] = 0
    depth[30, :] = depth[32, :] = 0  # row 31 has neighbours on one line only: no plane
    found = domains.normals_from_depth(depth, K)
    unknown = (depth == 0) | (np.arange(SIZE[0]) == 31)[:, None]
    assert not found[unknown].any()
    np.testing.assert_allclose(found[~unknown] - normal, 0, atol=1e-3)


def test_euclidean_depth_is_the_length_of_the_point() -> None:
    depth = np.zeros(SIZE)
    depth[3, 7] = 2.0
    found = domains.euclidean_depth(depth, K)
    assert found[3, 7] == pytest.approx(2 * np.hypot(np.hypot(24.5 / 50, 20.5 / 55), 1), rel=1e-6)
    assert np.count_nonzero(found) == 1


def test_reshading_is_lamberts_cosine() -> None:
    normals = np.float32([[[0, 0, -1], [0.6, 0, -0.8], [0, 1, 0], [0, 0, 0]]])
    np.testing.assert_allclose(domains.reshading(normals), [[1, 0.8, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(
        domains.reshading(normals, light=(5, 0, 0)), [[0, 0.6, 0, 0]], atol=1e-6
    )


def test_texture_edges_measure_the_slope_of_luminance() -> None:
    ramp = np.broadcast_to(np.linspace(0, 0.63, 64, dtype=np.float32), SIZE)
    grey = np.repeat(ramp[..., None], 3, axis=-1)
    found = domains.texture_edges(grey)
    np.testing.assert_allclose(found[8:-8, 8:-8], 0.01, atol=1e-5)
    coloured = np.rint(grey * [255, 0, 0]).astype(np.uint8)  # red is 0.299 of the luminance
    np.testing.assert_allclose(
        domains.texture_edges(coloured, sigma=3)[16:-16, 16:-16], 0.00299, atol=1e-4
    )
    assert not domains.texture_edges(np.full((*SIZE, 3), 99, np.uint8)).any()


@settings(max_examples=30, deadline=None)
@given(slopes, slopes, st.floats(1.06, 4))
def test_occlusion_edges_are_steps_and_not_slopes(x: float, y: float, ratio: float) -> None:
    normal = np.array([x, y, -1.5])
    assume((normal @ rays() < -0.3).all())
    depth = plane(normal, 1.0)
    assert not domains.occlusion_edges(depth, threshold=1e-4).any()
    depth = np.full(SIZE, 1.5, np.float32)
    depth[:, 30:] *= ratio
    found = domains.occlusion_edges(depth)
    # the near side has the whole step in units of its own depth, so has the far side
    np.testing.assert_allclose(found[:, 29:31], 1 - 1 / ratio, atol=1e-5)
    assert not found[:, :29].any()
    assert not found[:, 31:].any()
    np.testing.assert_array_equal(domains.occlusion_edges(depth.T), found.T)


def test_no_occlusion_edge_beside_missing_depth() -> None:
    depth = np.full(SIZE, 2.0)
    depth[20:24, 20:24] = 0
    assert not domains.occlusion_edges(depth).any()


def test_creases_stay_below_the_threshold() -> None:
    normals = np.array([[0.7071, 0, -0.7071], [-0.7071, 0, -0.7071]])
    focal = np.diag([4.0, 4.0, 1.0]) @ K  # 200 pixels: 2 / 200 = 0.01
    v, u = np.mgrid[: SIZE[0], : SIZE[1]]
    d = np.linalg.inv(focal) @ np.stack([u + 95, v + 70.5, np.ones_like(u)]).reshape(3, -1)
    depth = np.minimum(*(-2 / (normals @ d))).reshape(SIZE)
    strength = domains.occlusion_edges(depth, threshold=0).max()
    assert strength == pytest.approx(2 / 200, rel=0.05)
    assert not domains.occlusion_edges(depth).any()


@pytest.mark.parametrize('radius', [0.4, 0.8])
def test_curvature_of_sphere_and_plane(radius: float) -> None:
    centre = np.array([0.1, 0.05, 2.0])
    depth, on = sphere(centre, radius, 3.5)
    points = domains.backproject(depth, K)
    normals = np.where(on[..., None], (points - centre) / radius, [0, 0, -1.0])
    found = domains.principal_curvature(normals, points)
    inner = on & (((points - centre) / radius) @ [0, 0, -1] > 0.7)
    np.testing.assert_allclose(found[inner], 1 / radius, rtol=0.03)
    assert np.abs(found[~on]).max() < 1e-3
    assert not found[domains.occlusion_edges(depth) > 0].any()


def test_curvature_of_cylinder_and_bowl() -> None:
    """(1 / r, 0) from outside; seen from inside, a sphere is concave: -1 / r."""
    x, _, z = rays()
    root = 4 - (x * x + z * z) * (4 - 0.25)  # axis x = 0, z = 2, radius 0.5
    near = (2 - np.sqrt(np.maximum(root, 0))) / (x * x + z * z)
    depth = np.where(np.abs(x) < 0.2, near, 0).reshape(SIZE)
    points = domains.backproject(depth, K)
    normals = (points - [0, 0, 2]) * [2, 0, 2] * (points[..., 2:] > 0)
    found = domains.principal_curvature(normals, points)[4:-4, 26:38]
    np.testing.assert_allclose(found[..., 0], 2, rtol=0.02)
    np.testing.assert_allclose(found[..., 1], 0, atol=1e-3)
    d = rays()
    depth = (3 / np.linalg.norm(d, axis=0)).reshape(SIZE)  # all around the camera
    points = domains.backproject(depth, K)
    bowl = domains.principal_curvature(-points / 3, points)[1:-1, 1:-1]
    np.testing.assert_allclose(bowl, -1 / 3, rtol=0.01)


def test_errors_name_rule_and_value() -> None:
    depth, colour = np.ones(SIZE), np.ones((*SIZE, 3))
    with pytest.raises(ValueError, match=r'depth must have shape \(H, W\), got \(48, 64, 1\): sq'):
        domains.normals_from_depth(depth[..., None], K)
    with pytest.raises(ValueError, match='radius must be at least 1, got 0'):
        domains.normals_from_depth(depth, K, radius=0)
    with pytest.raises(ValueError, match=r'rgb must have shape \(H, W, 3\), got \(48, 64\)'):
        domains.texture_edges(depth)
    with pytest.raises(ValueError, match='light must be a direction'):
        domains.reshading(colour, light=(0, 0, 0))
    with pytest.raises(ValueError, match=r'normals .* and points .* differ'):
        domains.principal_curvature(colour, colour[:-1])
