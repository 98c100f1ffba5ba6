"""Smoothing of coarsely quantised depth, against planes and steps whose geometry is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcen.datasets.domains import normals_from_depth, pixel_rays, smooth_depth

STEP = 10 / 255  # NYUv2 in 8 bits
SIZE = (96, 128)
CAMERA = np.array([[104.0, 0, 64.0], [0, 104.0, 48.0], [0, 0, 1]])


def plane(normal, distance):
    """Z depth (H, W) of the plane n . P = -distance, with n facing the camera."""
    return -distance / (pixel_rays(*SIZE, CAMERA) @ np.asarray(normal))


def stored(depth):
    return (np.rint(depth / STEP) * STEP).astype(np.float32)


def angles(depth, normal, margin=12):
    """Degrees between the normals of a depth map and the true one, inside the frame."""
    ours = normals_from_depth(depth, CAMERA, radius=2)[margin:-margin, margin:-margin]
    return np.degrees(np.arccos(np.clip(ours @ np.asarray(normal), -1, 1)))


@settings(max_examples=15, deadline=None)
@given(st.floats(-35, 35), st.floats(-35, 35), st.floats(1.5, 3.0))
def test_stairs_of_a_plane_are_gone(yaw, pitch, distance):
    """Normals as of a slanted plane. Where it is almost frontal, stairs are wider than the window
    and look like what they are not, but by no more than the little slant that they hide."""
    a, b = np.radians([yaw, pitch])
    normal = np.array([np.sin(a) * np.cos(b), np.sin(b), -np.cos(a) * np.cos(b)])
    depth = plane(normal, distance)
    smooth = smooth_depth(stored(depth), STEP, radius=12)
    before, after = angles(stored(depth), normal), angles(smooth, normal)
    tilt = np.degrees(np.arccos(-normal[2]))
    assert np.median(after) < (1 if tilt > 6 else 3)
    assert after.mean() <= before.mean() + 0.5
    slack = STEP + 0.0019 * stored(depth) ** 2
    assert (np.abs(smooth - stored(depth)) <= slack + 1e-4).all()


def test_stairs_are_what_it_is_for():
    """On a wall at 20 degrees: 15 degrees off as stored, below one everywhere when smoothed."""
    normal = np.array([np.sin(np.radians(20)), 0, -np.cos(np.radians(20))])
    depth = stored(plane(normal, 1.5))
    before, after = angles(depth, normal), angles(smooth_depth(depth, STEP, 12), normal)
    assert before.mean() > 10
    assert after.max() < 1


def test_borders_stay_where_they_are():
    depth = np.full(SIZE, 3.0, np.float32)
    depth[30:60, 40:80] = 1.5
    smooth = smooth_depth(depth, STEP, radius=12)
    np.testing.assert_allclose(smooth, depth, atol=1e-4)


def test_missing_depth_stays_missing_and_tells_nobody():
    depth = stored(plane([0.3, 0, -np.sqrt(1 - 0.09)], 2.0))
    holed = depth.copy()
    holed[40:50, 50:70] = 0
    smooth = smooth_depth(holed, STEP, radius=12)
    assert ((smooth == 0) == (holed == 0)).all()
    known = holed > 0
    assert np.abs(smooth - depth)[known].max() <= (STEP + 0.0019 * depth.max() ** 2) + 1e-4


def test_exact_depth_of_a_plane_stays():
    depth = plane([0.3, 0.2, -np.sqrt(1 - 0.13)], 2.0).astype(np.float32)
    np.testing.assert_allclose(smooth_depth(depth, 0, radius=12), depth, rtol=1e-5)


@pytest.mark.parametrize('kwargs', [dict(step=STEP, radius=5), dict(step=-1.0, radius=6)])
def test_arguments_out_of_range(kwargs):
    with pytest.raises(ValueError, match='radius must be at least 6, step and noise not negative'):
        smooth_depth(np.ones(SIZE, np.float32), **kwargs)
    with pytest.raises(ValueError, match=r'depth must have shape \(H, W\)'):
        smooth_depth(np.ones((*SIZE, 1), np.float32), STEP, 6)
