"""Transforms on several modalities: the same geometry for all, each modality by its own rules."""

# mmcv draws from numpy's global generator, so that is the one to seed
from __future__ import annotations

import pickle
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import avoid_cache_randomness
from mmengine.registry import TRANSFORMS

from mmcen.datasets import ForEachModality, RandomScale
from mmcen.modalities import ModalitySpec

VOID = 65535  # what padding decodes to
NEAREST = {  # modalities that can be decoded whatever is done to them
    name: ModalitySpec(name, kind='raw', interpolation='nearest', pad=pad)
    for name, pad in (('rgb', (255, 255, 255)), ('depth', VOID), ('pair', float(VOID)))
}


def coded(height: int, width: int) -> dict:
    """A sample in which every modality and the label say which pixel of the frame it is."""
    index = np.arange(height * width).reshape(height, width)
    low, high = (index & 255).astype(np.uint8), (index >> 8).astype(np.uint8)
    return {
        'modalities': {
            'rgb': np.stack([high, low, low], -1),
            'depth': index.astype(np.float32)[..., None],
            'pair': np.stack([index, -index], -1).astype(np.float32),
        },
        'modality_info': NEAREST,
        'gt_seg_map': (index % 251).astype(np.uint8),
        'seg_fields': ['gt_seg_map'],
        'img_shape': (height, width),
        'ori_shape': (height, width),
    }


def decode(sample: dict) -> np.ndarray:
    """Index of the pixel that each one came from, after checking that all agree."""
    rgb, depth, pair = sample['modalities'].values()
    index = rgb[..., 0].astype(int) * 256 + rgb[..., 1]
    assert np.array_equal(index, depth[..., 0])
    assert np.array_equal(index, pair[..., 0])
    assert rgb.ndim == depth.ndim == pair.ndim == 3
    inside = index != VOID
    assert np.array_equal(pair[..., 1][inside], -index[inside])
    assert np.array_equal(sample['gt_seg_map'], np.where(inside, index % 251, 255))
    assert tuple(sample['img_shape']) == index.shape
    return index


STEPS: list[dict[str, Any]] = [
    {'type': 'RandomScale', 'ratio_range': (0.5, 2.0), 'min_side': 9},
    {'type': 'RandomResize', 'scale': (30, 20), 'ratio_range': (0.5, 1.5), 'keep_ratio': True},
    {'type': 'RandomChoiceResize', 'scales': [(20, 20), (31, 17)]},
    {'type': 'Resize', 'scale_factor': 0.75, 'keep_ratio': True},
    {'type': 'ResizeToMultiple', 'size_divisor': 8},
    {'type': 'RandomCrop', 'crop_size': (14, 12)},
    {'type': 'RandomCrop', 'crop_size': (14, 12), 'cat_max_ratio': 0.2},
    {'type': 'CenterCrop', 'crop_size': (16, 10)},
    {'type': 'RandomFlip', 'prob': 0.5},
    {'type': 'RandomFlip', 'prob': [0.4, 0.4], 'direction': ['vertical', 'diagonal']},
    {'type': 'Pad', 'size': (33, 29)},
    {'type': 'Pad', 'size_divisor': 16},
    {'type': 'RandomApply', 'transforms': [{'type': 'RandomCrop', 'crop_size': (8, 8)}]},
    {
        'type': 'RandomChoice',
        'transforms': [
            [{'type': 'RandomFlip', 'prob': 0.5}],
            [{'type': 'RandomScale', 'min_side': 5}, {'type': 'RandomCrop', 'crop_size': (7, 9)}],
        ],
    },
]  # fmt: skip


def for_each(*steps: dict, **kwargs: Any) -> ForEachModality:
    return ForEachModality(list(steps), **kwargs)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=4),
    height=st.integers(10, 40),
    width=st.integers(10, 40),
    seed=st.integers(0, 2**31),
)
def test_all_modalities_stay_in_register(
    steps: list[dict], height: int, width: int, seed: int
) -> None:
    np.random.seed(seed)
    sample = coded(height, width)
    for step in steps:
        sample = for_each(step)(sample)
        decode(sample)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_one_wrapper_of_many_steps(seed: int) -> None:
    np.random.seed(seed)
    transform = for_each(
        {'type': 'RandomScale', 'min_side': 12},
        {'type': 'RandomCrop', 'crop_size': (24, 24)},
        {'type': 'Pad', 'size': (24, 24)},
        {'type': 'RandomFlip', 'prob': 0.5},
    )
    assert decode(transform(coded(17, 23))).shape == (24, 24)


@pytest.mark.parametrize(
    'step',
    [
        {'type': 'RandomRotate', 'prob': 1.0, 'degree': 30.0, 'pad_val': 0},
        {'type': 'RandomCutOut', 'prob': 1.0, 'n_holes': (1, 5), 'cutout_ratio': (0.2, 0.3)},
        {'type': 'RandomGrayscale', 'prob': 0.5, 'keep_channels': True},
    ],
)
def test_copies_stay_copies(step: dict) -> None:
    """Transforms that blend pixels cannot be decoded, but treat equal modalities equally."""
    transform = for_each(step)
    for _ in range(8):
        sample = coded(20, 30)
        sample['modalities'] = {'a': sample['modalities']['rgb'], 'b': sample['modalities']['rgb']}
        out = transform(sample)['modalities']
        assert np.array_equal(out['a'], out['b'])


def test_draws_as_often_as_for_one_modality() -> None:
    transform = for_each(*STEPS[:1], *STEPS[6:7], *STEPS[8:10])
    states = []
    for names in (['rgb'], ['rgb', 'depth', 'pair']):
        np.random.seed(3)
        sample = coded(30, 40)
        sample['modalities'] = {name: sample['modalities'][name] for name in names}
        transform(sample)
        states.append(np.random.random())
    assert states[0] == states[1]


def test_each_modality_by_its_own_interpolation() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    depth = rng.uniform(0.7, 10, (20, 30, 1)).astype(np.float32)
    label = rng.integers(0, 40, (20, 30), dtype=np.uint8)
    transform = for_each({'type': 'Resize', 'scale': (47, 33), 'interpolation': 'area'})
    info = {
        'rgb': ModalitySpec('rgb', interpolation='bicubic'),
        'depth': ModalitySpec('depth', unit='m'),
    }
    for _ in range(2):  # settings of one sample do not leak into the next
        sample = {'modalities': {'rgb': rgb, 'depth': depth}, 'gt_seg_map': label}
        sample |= {'modality_info': info}
        out = transform(sample | {'seg_fields': ['gt_seg_map']})
        moved = out['modalities']
        assert np.array_equal(
            moved['rgb'], cv2.resize(rgb, (47, 33), interpolation=cv2.INTER_CUBIC)
        )
        nearest = {'dsize': (47, 33), 'interpolation': cv2.INTER_NEAREST}
        assert np.array_equal(moved['depth'][..., 0], cv2.resize(depth, **nearest))
        assert np.array_equal(out['gt_seg_map'], cv2.resize(label, **nearest))
        assert out['img_shape'] == (33, 47)
        assert out['scale'] == (47, 33)
        assert out['scale_factor'] == (47 / 30, 33 / 20)
    plain = transform({'modalities': {'rgb': rgb}, 'seg_fields': []})['modalities']['rgb']
    assert np.array_equal(plain, cv2.resize(rgb, (47, 33), interpolation=cv2.INTER_AREA))


def test_pads_each_modality_by_its_own_value() -> None:
    transform = for_each({'type': 'Pad', 'size': (8, 6), 'pad_val': {'img': 0, 'seg': 7}})
    mean = {'mean': [123.675, 116.28, 103.53], 'std': [1.0] * 3}
    info = {
        'rgb': ModalitySpec('rgb', **mean),
        'depth': ModalitySpec('depth', kind='raw', pad=-1.0, mean=[5.0], std=[1.0]),
        'pair': ModalitySpec('pair', kind='raw', pad=2),
    }
    out = transform(coded(4, 5) | {'modality_info': info})
    assert out['modalities']['rgb'][5, 7].tolist() == [124, 116, 104]  # the mean, rounded
    assert out['modalities']['depth'][5, 7].tolist() == [-1]
    assert out['modalities']['pair'][5, 7].tolist() == [2, 2]
    assert out['gt_seg_map'][5, 7] == 7
    assert out['modalities']['depth'].dtype == np.float32


def test_flip_is_noted_and_label_flipped_once() -> None:
    out = for_each({'type': 'RandomFlip', 'prob': 1.0})(coded(4, 5))
    assert out['flip'] is True
    assert out['flip_direction'] == 'horizontal'
    assert np.array_equal(decode(out), np.arange(20).reshape(4, 5)[:, ::-1])


def test_label_is_handed_to_one_modality() -> None:
    seen = []

    class Look(BaseTransform):
        def transform(self, results: dict) -> dict:
            seen.append(('gt_seg_map' in results, results['seg_fields']))
            return results

    ForEachModality([Look()])(coded(4, 5))
    assert seen == [(True, ['gt_seg_map']), (False, []), (False, [])]


def test_label_can_stay_behind() -> None:
    sample = coded(4, 6)
    out = for_each({'type': 'RandomFlip', 'prob': 1.0}, label=False)(dict(sample))
    assert np.array_equal(out['gt_seg_map'], sample['gt_seg_map'])
    assert out['seg_fields'] == ['gt_seg_map']
    assert out['modalities']['depth'][0, 0, 0] == 5


def test_colour_alone() -> None:
    transform = for_each({'type': 'PhotoMetricDistortion'}, only=['rgb'])
    sample = coded(20, 30)
    changed = 0
    for _ in range(5):
        out = transform(dict(sample))
        changed += not np.array_equal(out['modalities']['rgb'], sample['modalities']['rgb'])
        assert out['modalities']['depth'] is sample['modalities']['depth']
        assert out['gt_seg_map'] is sample['gt_seg_map']
    assert changed


def test_only_of_a_modality_that_is_not_chosen_does_nothing() -> None:
    transform = for_each({'type': 'PhotoMetricDistortion'}, only=['rgb'])
    depth = coded(4, 5)['modalities']['depth']
    sample = {'modalities': {'depth': depth}, 'known_modalities': ['rgb', 'depth']}
    assert transform(sample)['modalities']['depth'] is depth
    del sample['known_modalities']
    with pytest.raises(ValueError, match=r"'rgb' is unknown, known are \['depth'\]"):
        transform(sample)


def test_sample_may_be_refused() -> None:
    class Refuse(BaseTransform):
        def transform(self, results: dict) -> None:
            return None

    assert ForEachModality([Refuse()])(coded(4, 5)) is None


def test_used_transform_can_be_sent_to_workers() -> None:
    transform = for_each(*STEPS[:1], *STEPS[5:6], *STEPS[8:9])
    transform(coded(30, 40))
    decode(pickle.loads(pickle.dumps(transform))(coded(30, 40)))


# --- what cannot be done alike is refused


@TRANSFORMS.register_module()
class _DrawsInTheOpen(BaseTransform):
    """Random choices that mmcv cannot repeat."""

    def __init__(self, library: str) -> None:
        self.library = library

    def transform(self, results: dict) -> dict:
        import random

        import torch

        draw = {'numpy': np.random.rand, 'random': random.random, 'torch': lambda: torch.rand(1)}
        draw[self.library]()
        return results


@TRANSFORMS.register_module()
@avoid_cache_randomness
class _Forbids(BaseTransform):
    def transform(self, results: dict) -> dict:
        return results


@TRANSFORMS.register_module()
class _OwnGenerator(BaseTransform):
    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)

    def transform(self, results: dict) -> dict:
        return results


@pytest.mark.parametrize(
    'step',
    [
        {'type': '_DrawsInTheOpen', 'library': 'numpy'},
        {'type': '_DrawsInTheOpen', 'library': 'random'},
        {'type': '_DrawsInTheOpen', 'library': 'torch'},
        {'type': '_Forbids'},
        {'type': '_OwnGenerator'},
        {'type': 'RandomRotFlip', 'rotate_prob': 0.5, 'flip_prob': 0.5, 'degree': 10.0},
    ],
)
def test_randomness_that_cannot_be_shared(step: dict) -> None:
    with pytest.raises(ValueError, match=f'{step["type"]} draws random numbers .*only='):
        for_each(step)(coded(20, 20))
    alone = coded(20, 20)
    alone['modalities'] = {'rgb': alone['modalities']['rgb']}
    for_each(step)(alone)  # nothing to share


def test_depth_is_not_made_into_bytes() -> None:
    sample = coded(4, 5)
    sample['modalities'] = {'depth': sample['modalities']['depth']}
    step = {'type': 'RandomGrayscale', 'prob': 0.0}
    with pytest.raises(ValueError, match=r'turned depth from float32 to uint8.*only='):
        for_each(step)(sample)


@pytest.mark.parametrize(
    'step', [{'type': 'RandomFlip', 'prob': 1.0}, {'type': 'Resize', 'scale': (9, 9)}]
)
def test_one_modality_is_not_moved_alone(step: dict) -> None:
    with pytest.raises(ValueError, match=r"only=\['depth'\] moved depth .*leave out only"):
        for_each(step, only='depth')(coded(4, 5))


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="'colour' is unknown"):
        for_each({'type': 'Resize', 'scale': (9, 9)}, only=['colour'])(coded(4, 5))


def test_padding_of_another_number_of_channels() -> None:
    info = {'rgb': ModalitySpec('rgb', pad=(1, 2))}
    with pytest.raises(ValueError, match=r"'rgb' has 3 channels and is padded with \(1, 2\): st"):
        for_each({'type': 'Pad', 'size': (9, 9)})(coded(4, 5) | {'modality_info': info})


def test_sizes_must_agree() -> None:
    sample = coded(4, 5)
    sample['modalities']['depth'] = np.zeros((5, 5, 1), np.float32)
    with pytest.raises(ValueError, match=r"differ in size.*'rgb': \(4, 5\), 'depth': \(5, 5\)"):
        for_each({'type': 'RandomFlip', 'prob': 0.5})(sample)
    with pytest.raises(ValueError, match='put LoadModalities before'):
        for_each({'type': 'RandomFlip', 'prob': 0.5})({'img': sample})


# --- RandomScale


@settings(max_examples=100, deadline=None)
@given(
    height=st.integers(8, 60),
    width=st.integers(8, 60),
    low=st.floats(0.3, 1.5),
    spread=st.floats(0, 1.5),
    min_side=st.integers(1, 60),
    seed=st.integers(0, 2**31),
)
def test_random_scale_is_the_official_rule(
    height: int, width: int, low: float, spread: float, min_side: int, seed: int
) -> None:
    np.random.seed(seed)
    image = np.zeros((height, width, 3), np.uint8)
    out = RandomScale((low, low + spread), min_side)({'img': image})
    np.random.seed(seed)
    factor = np.random.uniform(low, low + spread)
    if min(height, width) * factor < min_side:
        factor = min_side / min(height, width)
    expected = cv2.resize(image, None, fx=factor, fy=factor).shape[:2]
    assert out['img'].shape[:2] == expected
    assert min(out['img'].shape[:2]) >= min_side


def test_random_scale_covers_its_range() -> None:
    transform = RandomScale((0.5, 2.0), min_side=350)
    image = np.zeros((480, 640, 1), np.uint8)
    sides = [transform({'img': image})['img_shape'][0] for _ in range(150)]
    assert min(sides) == 350
    assert 930 < max(sides) <= 960
    assert np.mean(np.equal(sides, 350)) == pytest.approx((350 / 480 - 0.5) / 1.5, abs=0.1)


@pytest.mark.parametrize('ratio_range', [(2.0, 0.5), (0.0, 1.0)])
def test_random_scale_wants_an_interval(ratio_range: tuple) -> None:
    with pytest.raises(ValueError, match='not an interval above 0'):
        RandomScale(ratio_range)
