"""Corrupted modalities: each kind does what its level says, alike in every run."""

import numpy as np
import pytest

from mmcen.datasets.transforms import CorruptModality

RGB = np.random.default_rng(0).integers(30, 220, (60, 80, 3), dtype=np.uint8)
DEPTH = np.random.default_rng(1).uniform(1, 4, (60, 80, 1)).astype(np.float32)


def corrupt(modality, kind, level, name='a/b.png', **kwargs):
    arrays = dict(rgb=RGB.copy(), depth=DEPTH.copy())
    sample = dict(modalities=arrays, img_path=name)
    found = CorruptModality(modality, kind, level, **{'seed': 0, **kwargs})(sample)['modalities']
    other = 'depth' if modality == 'rgb' else 'rgb'
    assert np.array_equal(found[other], dict(rgb=RGB, depth=DEPTH)[other])
    assert (found[modality].shape, found[modality].dtype) == (
        arrays[modality].shape, arrays[modality].dtype,
    )  # fmt: skip
    return found[modality]


@pytest.mark.parametrize('kind', ['missing_pixels', 'missing_blocks'])
@pytest.mark.parametrize('modality', ['rgb', 'depth'])
def test_a_share_of_the_pixels_is_missing(modality, kind):
    for level in (0.25, 0.5, 0.75):
        gone = ~corrupt(modality, kind, level).any(-1)
        assert gone.mean() == pytest.approx(level, abs=0.04)
        neighbours = (gone[:, 1:] == gone[:, :-1]).mean()
        assert (neighbours > 0.85) == (kind == 'missing_blocks')


def test_noise_has_the_deviation_that_is_stated():
    added = corrupt('depth', 'noise', 0.5) - DEPTH
    assert corrupt('depth', 'noise', 3.0).min() == 0  # depth is not negative
    assert added.std() == pytest.approx(0.5 * DEPTH.std(), rel=0.05)
    added = (corrupt('depth', 'distance_noise', 0.02) - DEPTH) / DEPTH**2
    assert added.std() == pytest.approx(0.02, rel=0.05)


def test_light():
    dark = corrupt('rgb', 'darkness', 0.1).astype(float)
    assert dark.mean() == pytest.approx(0.1 * RGB.mean(), rel=0.05)
    photons = RGB / 255 * 0.1 * 1000  # the variance of shot noise is the number of photons
    spread = (dark - 0.1 * RGB) / (255 / 1000)
    assert np.mean(spread**2) == pytest.approx(photons.mean(), rel=0.1)
    wanted = np.minimum(RGB.astype(int) * 3, 255)
    assert np.array_equal(corrupt('rgb', 'over_exposure', 3), wanted)


def test_geometry_and_bits():
    moved = corrupt('depth', 'shift', 5)
    assert np.array_equal(moved[:, 5:], DEPTH[:, :-5])
    assert not moved[:, :5].any()
    blurred = corrupt('rgb', 'motion_blur', 5)[30, 40]
    assert np.abs(blurred - RGB[30, 38:43].astype(float).mean(0)).max() <= 0.51
    assert len(np.unique(corrupt('depth', 'quantise', 3))) <= 8
    assert not corrupt('depth', 'shift', 10_000).any()
    assert np.abs(corrupt('depth', 'quantise', 8) - DEPTH).max() <= DEPTH.max() / 255 / 2 + 1e-6


def test_a_seed_corrupts_a_frame_alike_and_frames_differ():
    first = corrupt('depth', 'noise', 0.5)
    assert np.array_equal(first, corrupt('depth', 'noise', 0.5, name='elsewhere/a/b.png'))
    assert not np.array_equal(first, corrupt('depth', 'noise', 0.5, name='a/c.png'))
    np.random.seed(0)
    drawn = [corrupt('depth', 'noise', (0, 1), seed=None, prob=0.5) for _ in range(40)]
    assert 8 < sum(np.array_equal(one, DEPTH) for one in drawn) < 32


def test_an_absent_modality_stays_absent():
    sample = dict(modalities=dict(rgb=RGB), known_modalities=['rgb', 'depth'])
    assert CorruptModality('depth', 'shift', 3)(sample)['modalities'].keys() == {'rgb'}


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (('depth', 'rain', 1), "kind must be one of .*, got 'rain'"),
        (('depth', 'missing_pixels', 2), 'level of missing_pixels must be a number from 0 to 1,'),
        (('depth', 'quantise', 0), 'level of quantise must be a number from 1 to 16,'),
        (('depth', 'darkness', 0.5), "darkness is for 8-bit colour, and 'depth' is float32"),
        (('rgb', 'distance_noise', 0.5), "is for depth in metres, and 'rgb' is uint8"),
        (('ir', 'shift', 5), "modality 'ir' is unknown: choose one of"),
    ],
)
def test_what_does_not_fit_is_refused(args, message):
    with pytest.raises(ValueError, match=message):
        CorruptModality(*args)(dict(modalities=dict(rgb=RGB, depth=DEPTH)))
