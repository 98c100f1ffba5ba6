"""Scale and crop in one step: the pictures of the two steps, and those of double precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS

from mmcen.datasets import ForEachModality, NYUv2Dataset, RandomScaleCrop
from mmcen.modalities import ModalitySpec

CONFIG = Path(__file__).parents[2] / 'configs' / '_base_' / 'datasets' / 'nyuv2.py'
NAMES = ('nearest', 'bilinear', 'bicubic', 'area', 'lanczos')
PADDING = {'rgb': (124, 116, 104), 'depth': 0.0}


def frame(height: int, width: int) -> dict[str, Any]:
    """Noise, the hardest picture to interpolate: colour 0..255, depth 0..10, labels."""
    rng = np.random.default_rng(height * width)
    return {
        'modalities': {
            'rgb': rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
            'depth': rng.uniform(0, 10, (height, width, 1)).astype(np.float32),
        },
        'gt_seg_map': rng.choice([*range(40), 255], (height, width)).astype(np.uint8),
        'seg_fields': ['gt_seg_map'],
    }


def run(
    steps: list[dict], sample: dict, seed: int, info: dict[str, ModalitySpec]
) -> tuple[dict, float]:
    """The transformed sample, and the random number that comes next."""
    transform = ForEachModality(steps)
    sample = sample | {'modality_info': info}
    np.random.seed(seed)
    return transform(sample), np.random.random()


def largest(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    return float(np.abs(a.astype(np.float64) - b).max())


@settings(max_examples=120, deadline=None)
@given(
    height=st.integers(3, 70),
    width=st.integers(3, 70),
    crop=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    low=st.floats(0.2, 2.5),
    more=st.floats(0, 1),
    min_side=st.integers(1, 50),
    rgb=st.sampled_from(NAMES),
    depth=st.sampled_from(NAMES),
    cat=st.sampled_from((1.0, 0.5, 0.1, 0.05)),
    seed=st.integers(0, 2**31),
)
def test_equals_scale_then_crop(
    height: int, width: int, crop: tuple[int, int], low: float, more: float, min_side: int,
    rgb: str, depth: str, cat: float, seed: int,
) -> None:  # fmt: skip
    scale = {'ratio_range': (low, low + more), 'min_side': min_side}
    window = {'crop_size': crop, 'cat_max_ratio': cat}
    two = [{'type': 'RandomScale', **scale}, {'type': 'RandomCrop', **window}]
    one = [{'type': 'RandomScaleCrop', **window, **scale}]
    by = {
        'rgb': ModalitySpec('rgb', interpolation=rgb),
        'depth': ModalitySpec('depth', unit='m', interpolation=depth),
    }
    expected, follows = run(two, frame(height, width), seed, by)
    out, ours_follows = run(one, frame(height, width), seed, by)
    assert follows == ours_follows
    # OpenCV computes the last columns of a picture in another order of rounding
    assert largest(out['modalities']['rgb'], expected['modalities']['rgb']) <= (rgb == 'bicubic')
    bound = 0 if depth == 'nearest' else 2e-5  # of 10 m
    assert largest(out['modalities']['depth'], expected['modalities']['depth']) <= bound
    assert np.array_equal(out['gt_seg_map'], expected['gt_seg_map'])
    for key in ('img_shape', 'scale', 'scale_factor', 'keep_ratio'):
        assert out[key] == expected[key], key


def bicubic(picture: np.ndarray, length: int) -> np.ndarray:
    """Rows resampled in double precision: Keys' kernel with a = -0.75, edges repeated."""
    at = (np.arange(length) + 0.5) * len(picture) / length - 0.5
    first = np.floor(at).astype(int) - 1
    out = np.zeros((length, *picture.shape[1:]))
    for tap in range(4):
        x = np.abs(at - (first + tap))
        near = (1.25 * x - 2.25) * x**2 + 1
        far = -0.75 * (((x - 5) * x + 8) * x - 4)
        weight = np.where(x <= 1, near, np.where(x < 2, far, 0))
        row = np.clip(first + tap, 0, len(picture) - 1)
        out += weight.reshape(-1, *[1] * (picture.ndim - 1)) * picture[row]
    return out


def nearest(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixel at or above the position; the order of operations decides where that is a tie."""
    rows, columns = (
        np.floor(np.arange(new) * (1 / (new / old))).astype(int)
        for new, old in zip(size, picture.shape[:2], strict=True)
    )
    return picture[rows][:, columns]


def in_double_precision(sample: dict, size: tuple[int, int], crop: int, top: int, left: int) -> Any:
    """The official code's order, resize, pad, crop, of colour, depth and label."""
    rgb, depth = sample['modalities'].values()
    width, height = size
    wide = bicubic(rgb.astype(float), height).swapaxes(0, 1)
    colour = bicubic(wide, width).swapaxes(0, 1).clip(0, 255)
    grown = (max(height, crop), max(width, crop))
    padded = [np.zeros((*grown, 3)) + PADDING['rgb'], np.zeros((*grown, 1)), np.full(grown, 255)]
    small = (colour, *(nearest(one, (height, width)) for one in (depth, sample['gt_seg_map'])))
    for canvas, picture in zip(padded, small, strict=True):
        canvas[:height, :width] = picture
    return [canvas[top : top + crop, left : left + crop] for canvas in padded]


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(20, 60),
    width=st.integers(20, 60),
    crop=st.integers(16, 70),
    seed=st.integers(0, 2**31),
)
def test_equals_resize_pad_crop_in_double_precision(
    height: int, width: int, crop: int, seed: int
) -> None:
    """Colour within 1 of 255: half of it rounds the result, the rest rounds the weights, which
    OpenCV keeps in 11 bits. Depth and label exactly."""
    steps = [
        {'type': 'RandomScaleCrop', 'crop_size': crop, 'min_side': 24},
        {'type': 'Pad', 'size': (crop, crop)},
    ]
    by = {
        'rgb': ModalitySpec('rgb', interpolation='bicubic', pad=PADDING['rgb']),
        'depth': ModalitySpec('depth', unit='m', pad=PADDING['depth']),
    }
    out, _ = run(steps, frame(height, width), seed, by)
    size = out['scale']
    np.random.seed(seed)  # the same random numbers, drawn by hand
    ratio = max(np.random.uniform(0.5, 2), 24 / min(height, width))
    assert size == (round(width * ratio), round(height * ratio))
    top, left = (np.random.randint(0, max(n - crop, 0) + 1) for n in size[::-1])
    expected = in_double_precision(frame(height, width), size, crop, top, left)
    rgb, depth = out['modalities'].values()
    assert np.abs(rgb - expected[0]).max() <= 1
    assert np.array_equal(depth, expected[1].astype(np.float32))
    assert np.array_equal(out['gt_seg_map'], expected[2])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'crop_size': 0}, r'crop_size 0 is not positive: give \(height, width\)'),
        ({'crop_size': (4, -1)}, r'crop_size \(4, -1\) is not positive'),
        ({'crop_size': 4, 'ratio_range': (2.0, 0.5)}, 'is not an interval above 0'),
    ],
)
def test_refuses(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TRANSFORMS.build({'type': 'RandomScaleCrop', **arguments})


def test_one_number_is_a_square() -> None:
    assert RandomScaleCrop(7).crop_size == (7, 7)
    assert 'crop_size=(7, 7)' in repr(RandomScaleCrop(7))


def test_real_training_pipeline(data_root: Path) -> None:
    """The config's pipeline against stock steps in their plain order, on real frames."""
    settings = Config.fromfile(CONFIG).train_dataloader.dataset | {'data_root': str(data_root)}
    ours = DATASETS.build(settings)
    load, label, geometry, pack = settings.pipeline
    fused, pad, flip = geometry.transforms
    assert fused.type == 'RandomScaleCrop'
    scale = {'type': 'RandomScale', 'ratio_range': fused.ratio_range, 'min_side': fused.min_side}
    crop = {'type': 'RandomCrop', 'crop_size': fused.crop_size}
    plain = geometry | {'transforms': [scale, crop, pad, flip]}
    pipeline = [load, label, plain, pack]
    stock = NYUv2Dataset(
        data_root=str(data_root), modalities=settings.modalities, pipeline=pipeline
    )
    seen = set()
    for index in (*range(7), 11):
        np.random.seed(index)
        expected = stock[index]
        np.random.seed(index)
        out = ours[index]
        metas = [one['data_samples'].metainfo for one in (out, expected)]
        assert metas[0] == metas[1]
        seen.add((metas[0]['scale_factor'][0] > 500 / 480, metas[0]['flip']))
        difference = out['inputs']['rgb'].short() - expected['inputs']['rgb'].short()
        assert difference.abs().max() <= 1
        assert (difference != 0).float().mean() < 1e-4
        assert out['inputs']['depth'].equal(expected['inputs']['depth'])
        labels = [one['data_samples'].gt_sem_seg.data for one in (out, expected)]
        assert labels[0].equal(labels[1])
    assert len(seen) == 4  # with and without padding, mirrored or not
