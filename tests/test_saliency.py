"""Hand-made saliency and its refinement: against definitions, and on scenes of known objects."""

import cv2
import numpy as np
import pytest

from mmcen.saliency import guided_filter, handmade_saliency, nearness, refine_saliency

SIZE = (48, 64)
OBJECT = (slice(16, 34), slice(20, 44))


def scene(in_colour, in_depth):
    """A slanted wall of noise with an object in the middle, which each sense shows or not."""
    rng = np.random.default_rng(0)
    rgb = 100 + rng.normal(0, 4, (*SIZE, 3)) + np.linspace(0, 30, SIZE[1])[None, :, None]
    near = np.broadcast_to(np.linspace(0.2, 0.4, SIZE[0])[:, None], SIZE).copy()
    if in_colour:
        rgb[OBJECT] += (80, -60, -60)
    if in_depth:
        near[OBJECT] = 0.9
    mask = np.zeros(SIZE)
    mask[OBJECT] = 1
    return rgb.clip(0, 255).astype(np.uint8), near.astype(np.float32), mask


@pytest.mark.parametrize('senses', [(True, True), (True, False), (False, True)])
def test_finds_what_either_sense_shows(senses):
    rgb, near, mask = scene(*senses)
    saliency = handmade_saliency(rgb, near)
    assert saliency.shape == SIZE
    assert saliency.min() >= 0
    assert saliency.max() <= 1
    assert saliency[mask == 1].mean() > 0.7
    assert saliency[mask == 0].mean() < 0.1


def test_nothing_in_a_flat_frame():
    flat = np.full((*SIZE, 3), 90, np.uint8)
    assert handmade_saliency(flat, np.zeros(SIZE, np.float32)).max() == 0


def test_nearness_of_distances_and_disparities():
    metres = np.array([[1.0, 2.0, 3.0], [0.0, 1.5, 3.0]])
    expected = np.array([[1, 0.5, 0], [1, 0.75, 0]], np.float32)  # the hole is as near as above
    np.testing.assert_allclose(nearness(metres, 'low', missing=0), expected)
    disparity = np.array([[255, 128], [0, 64]], np.uint8)
    np.testing.assert_allclose(nearness(disparity, 'high'), disparity / 255, rtol=1e-6)
    assert not nearness(np.full((2, 2), 7), 'low').any()
    assert not nearness(np.zeros((2, 2)), 'low', missing=0).any()
    with pytest.raises(ValueError, match=r"near must be one of \('low', 'high'\), got 'bright'"):
        nearness(metres, 'bright')


def test_guided_filter_is_a_regression_in_every_window():
    """Equations 14 to 16 of He et al., window by window; borders are mirrored."""
    rng = np.random.default_rng(1)
    guide, values = rng.random((9, 11, 3)), rng.random((9, 11))
    radius, epsilon = 2, 0.01

    def windows(array):
        pad = [(radius, radius)] * 2 + [(0, 0)] * (array.ndim - 2)
        padded = np.pad(array, pad, mode='reflect')
        side = 2 * radius + 1
        for row, column in np.ndindex(9, 11):
            yield padded[row : row + side, column : column + side].reshape(side * side, -1)

    fits = []
    for inside, target in zip(windows(guide), windows(values), strict=True):
        centred = inside - inside.mean(0)
        joint = (centred * (target - target.mean())).mean(0)
        slope = np.linalg.solve(np.cov(centred.T, bias=True) + epsilon * np.eye(3), joint)
        fits.append([*slope, target.mean() - slope @ inside.mean(0)])
    fits = np.reshape(fits, (9, 11, 4))
    mean = np.reshape([window.mean(0) for window in windows(fits)], (9, 11, 4))
    expected = (mean[..., :3] * guide).sum(2) + mean[..., 3]
    inner = slice(radius, -radius)  # where windows are whole, whatever the border
    found = guided_filter(guide, values, radius, epsilon)
    np.testing.assert_allclose(found[inner, inner], expected[inner, inner], atol=2e-5)


def test_refinement_takes_the_edge_of_the_object_and_what_is_near():
    rgb, near, mask = scene(True, True)
    blurred = cv2.GaussianBlur(mask, (0, 0), 5)
    refined = refine_saliency(blurred, near, rgb)
    assert np.abs(refined - mask).mean() < 0.4 * np.abs(blurred - mask).mean()


def test_refinement_adds_salient_depth_and_takes_off_the_other():
    """Without the neighbours' opinion, against the formula, where the threshold is 1/2."""
    saliency = np.repeat([0.0, 0.4, 0.6, 0.8, 1.0], 8)[None].repeat(20, 0)
    near = np.zeros(saliency.shape, np.float32)
    near[:10] = 0.7
    rgb = np.full((*near.shape, 3), 90, np.uint8)
    logits = np.log(saliency[:, 8:32] / (1 - saliency[:, 8:32]))
    raised = logits + (2 * saliency[:, 8:32] - 1) * near[:, 8:32]
    middle = np.log(0.5 / 0.5)  # classes (0, 0.4) and (0.6, 0.8, 1) have the means 0.2 and 0.8
    expected = np.maximum(2 / (1 + np.exp(middle - raised)) - 1, 0)
    found = refine_saliency(saliency, near, rgb, strength=0)
    np.testing.assert_allclose(found[:, 8:32], expected.clip(1e-3), atol=3e-3)
    assert (found[0, 16:32] > found[-1, 16:32] + 0.04).all()
