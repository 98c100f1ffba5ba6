"""Named modalities to one batch: against the formula, and through the data loader and TTA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv import transforms as stock
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.logging import MMLogger
from mmengine.model import BaseModel, BaseTTAModel
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmcen.datasets import ForEachModality, PackModalities
from mmcen.models import CENDataPreprocessor

RGB = {'mean': [123.675, 116.28, 103.53], 'std': [58.395, 57.12, 57.375]}
DEPTH = {'mean': [0.0], 'std': [5.0]}
PAIR = {'mean': [0.5, 0.25], 'std': [2.0, 4.0]}


def listed(specs: dict[str, dict]) -> list[dict]:
    return [{'name': name, **spec} for name, spec in specs.items()]


def frame(height: int = 6, width: int = 8, seed: int = 0) -> dict[str, Tensor]:
    """One frame as it is packed: colour, depth and a modality of two channels."""
    generator = torch.Generator().manual_seed(seed)
    shape = (height, width)
    return {
        'rgb': torch.randint(256, (3, *shape), dtype=torch.uint8, generator=generator),
        'depth': torch.rand(1, *shape, generator=generator) * 10,
        'pair': torch.rand(2, *shape, generator=generator),
    }


def label(height: int, width: int) -> SegDataSample:
    sample = SegDataSample()
    sample.gt_sem_seg = PixelData(data=torch.ones(1, height, width, dtype=torch.int64))
    return sample


def expected(one: dict[str, Tensor], specs: dict[str, dict], channels: int) -> Tensor:
    """Normalise, tile and join by the definition, one modality after the other."""
    parts = []
    for name, spec in specs.items():
        mean, std = (torch.tensor(spec[key]).view(-1, 1, 1) for key in ('mean', 'std'))
        normal = (one[name].double() - mean) / std
        parts.append(normal.repeat(channels // len(mean), 1, 1))
    return torch.cat(parts).float()


@pytest.mark.parametrize(
    ('names', 'channels'),
    [
        (['rgb', 'depth'], 3),
        (['depth', 'rgb'], 3),
        (['depth'], 3),  # as networks for images take
        (['rgb', 'pair'], 6),  # paper, footnote 3: the least common multiple
        (['pair', 'depth', 'rgb'], 6),
    ],
)
def test_normalises_and_tiles(names: list[str], channels: int) -> None:
    specs = {name: {'rgb': RGB, 'depth': DEPTH, 'pair': PAIR}[name] for name in names}
    preprocessor = CENDataPreprocessor(listed(specs))
    assert preprocessor.modalities == names
    frames = [frame(seed=0), frame(seed=1)]
    out = preprocessor({'inputs': frames})['inputs']
    assert out.dtype == torch.float32
    assert out.shape == (2, len(names) * channels, 6, 8)
    wanted = torch.stack([expected(one, specs, channels) for one in frames])
    torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-6)


def test_all_forms_of_a_batch_are_equal() -> None:
    preprocessor = CENDataPreprocessor(listed({'rgb': RGB, 'depth': DEPTH}))
    frames = [frame(seed=0), frame(seed=1), frame(seed=2)]
    lists = {name: [one[name] for one in frames] for name in frames[0]}
    stacked = {name: torch.stack(column) for name, column in lists.items()}
    batch = pseudo_collate([{'inputs': one} for one in frames])
    stacked_by_mmengine = default_collate([{'inputs': one} for one in frames])
    wanted = preprocessor({'inputs': frames})['inputs']
    for inputs in (lists, stacked, batch['inputs'], stacked_by_mmengine['inputs'], tuple(frames)):
        assert preprocessor({'inputs': inputs})['inputs'].equal(wanted)


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(3, 12), st.integers(3, 12)), min_size=1, max_size=3),
    divisor=st.sampled_from([None, 1, 4, 5]),
    depth_pad=st.sampled_from([None, 0.0, -1.0, [7.5]]),
)
def test_pads_batches_of_any_sizes(sizes: list, divisor: int | None, depth_pad: Any) -> None:
    specs: dict[str, dict] = {'rgb': RGB, 'depth': {'mean': [2.5], 'std': [1.5]}}
    padded = specs | {'depth': specs['depth'] | ({} if depth_pad is None else {'pad': depth_pad})}
    preprocessor = CENDataPreprocessor(listed(padded), size_divisor=divisor)
    frames = [frame(h, w, seed) for seed, (h, w) in enumerate(sizes)]
    out = preprocessor(
        {'inputs': frames, 'data_samples': [label(h, w) for h, w in sizes]}, training=True
    )
    step = divisor or 1
    height, width = (-(-max(side) // step) * step for side in zip(*sizes, strict=True))
    assert out['inputs'].shape == (len(sizes), 6, height, width)
    of_pad = 2.5 if depth_pad is None else np.ravel(depth_pad)[0]
    wanted = torch.zeros(out['inputs'].shape)
    wanted[:, 3:] = (of_pad - 2.5) / 1.5
    for index, (h, w) in enumerate(sizes):
        wanted[index, :, :h, :w] = expected(frames[index], specs, 3)
        data = out['data_samples'][index].gt_sem_seg.data
        assert (data[:, :h, :w] == 1).all()
        assert data.shape == (1, height, width)
        assert data.sum() == h * w + 255 * (height * width - h * w)
    torch.testing.assert_close(out['inputs'], wanted, rtol=1e-5, atol=1e-5)


def test_pads_to_a_size_and_in_test() -> None:
    specs = {'rgb': RGB, 'depth': DEPTH}
    batch = {'inputs': [frame()], 'data_samples': [label(6, 8)]}
    fixed = CENDataPreprocessor(listed(specs), size=(10, 12), test_cfg={'size_divisor': 16})
    out = fixed(batch, training=False)
    assert out['inputs'].shape == (1, 6, 16, 16)
    assert out['data_samples'][0].img_padding_size == (0, 8, 0, 10)
    assert fixed(batch, training=True)['inputs'].shape == (1, 6, 10, 12)
    assert CENDataPreprocessor(listed(specs))(batch)['inputs'].shape == (1, 6, 6, 8)


def test_moves_to_the_device_of_the_model_and_has_no_state() -> None:
    preprocessor = CENDataPreprocessor(listed({'rgb': RGB, 'depth': DEPTH})).to('meta')
    out = preprocessor({'inputs': [frame()]})
    assert out['inputs'].device.type == 'meta'
    assert not preprocessor.state_dict()


def test_keeps_the_precision_of_the_model() -> None:
    specs = {'rgb': RGB, 'depth': DEPTH}
    preprocessor = CENDataPreprocessor(listed(specs)).double()
    one = frame()
    found = preprocessor({'inputs': [one]})['inputs']
    assert found.dtype == torch.float64
    torch.testing.assert_close(found[0].float(), expected(one, specs, 3), rtol=1e-6, atol=1e-6)


# --- errors


@pytest.mark.parametrize('channels', [1, 2])
def test_another_number_of_channels(channels: int) -> None:
    preprocessor = CENDataPreprocessor(listed({'depth': DEPTH}), common_channels=channels)
    out = preprocessor({'inputs': [frame()]})['inputs']
    assert out.shape == (1, channels, 6, 8)


def specs_of(**changes: Any) -> list[dict]:
    return listed({'rgb': RGB, 'depth': {**DEPTH, **changes}})


@pytest.mark.parametrize(
    ('kwargs', 'text'),
    [
        ({'modalities': []}, 'there is no modality: give'),
        ({'modalities': ['rgb']}, "modality 'rgb' has no mean and std: state lists"),
        ({'modalities': specs_of(men=[0.0])}, r"unknown key 'men' \(did you mean 'mean'\?\)"),
        ({'modalities': [RGB]}, 'has no name: give'),
        ({'modalities': specs_of(std=[1.0, 2.0])}, "'depth' has mean .* lists of equal length"),
        ({'modalities': specs_of(mean=0.0)}, "'depth' has mean 0.0 .* lists of equal length"),
        ({'modalities': specs_of(mean=[], std=[])}, 'lists of equal length'),
        ({'modalities': [{'name': 'rgb', 'std': [1.0]}]}, "'rgb' has mean None"),
        ({'modalities': specs_of(mean=[float('nan')])}, 'one finite number per channel'),
        ({'modalities': specs_of() + specs_of()}, "modality 'rgb' is listed twice"),
        ({'modalities': [{'name': 'a.b', **RGB}]}, "'a.b' cannot be used as a name: use letters"),
        ({'modalities': [{'name': 'ensemble', **RGB}]}, "'ensemble' cannot be used as a name"),
        ({'modalities': specs_of(std=[0.0])}, 'must be above 0'),
        ({'modalities': specs_of(pad=[0.0, 1.0])}, 'state one number, or one per channel'),
        ({'modalities': specs_of(), 'size': (4, 4), 'size_divisor': 2}, 'give one of them'),
        ({'modalities': specs_of(), 'common_channels': 4}, '4 is no multiple .* a multiple of 3'),
    ],
)
def test_bad_settings(kwargs: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        CENDataPreprocessor(**kwargs)


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('siz', r"has no argument 'siz' \(did you mean 'size'\?\): the arguments are"),
        ('test_config', r"has no argument 'test_config' \(did you mean 'test_cfg'\?\)"),
        ('xyz', r"has no argument 'xyz': the arguments are \['modalities', 'size'"),
    ],
)
def test_an_unknown_argument(name: str, text: str) -> None:
    with pytest.raises(TypeError, match=f'CENDataPreprocessor {text}'):
        CENDataPreprocessor(modalities=specs_of(), **{name: None})


def test_a_dict_is_rejected_because_its_order_is_lost() -> None:
    with pytest.raises(TypeError, match='modalities is a dict, .*: give a list, whose order is'):
        CENDataPreprocessor({'rgb': RGB, 'depth': DEPTH})


def test_takes_the_list_of_the_data_set() -> None:
    of_files = {'dir': 'd', 'suffix': '.png', 'unit': 'mm', 'interpolation': 'nearest'}
    preprocessor = CENDataPreprocessor(specs_of(**of_files))
    assert preprocessor({'inputs': [frame()]})['inputs'].equal(
        CENDataPreprocessor(specs_of())({'inputs': [frame()]})['inputs']
    )


def without(name: str) -> dict[str, Tensor]:
    return {key: value for key, value in frame().items() if key != name}


@pytest.mark.parametrize(
    ('inputs', 'text'),
    [
        ([dict(pair=frame()['pair'])], r"'rgb' is missing, the batch has \[\]"),
        ([frame(), without('depth')], r'have different modalities, .*: use batch_size=1'),
        (
            [frame() | {'depth': torch.ones(3, 6, 8)}],
            r"'depth' has shape \(3, 6, 8\), but its mean",
        ),
        ([frame() | {'depth': torch.ones(6, 8)}], r"'depth' has shape \(6, 8\).*1 channels"),
        ([frame() | {'depth': torch.ones(1, 6, 9)}], r"'depth' has \(6, 9\) pixels .* \(6, 8\)"),
        ({'rgb': [frame()['rgb']] * 2, 'depth': [frame()['depth']]}, "{'rgb': 2, 'depth': 1}"),
        ([frame(), frame(6, 9)], r'of one test batch differ in size, \[\(6, 8\), \(6, 9\)\]'),
    ],
)
def test_bad_batches(inputs: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        CENDataPreprocessor(listed({'rgb': RGB, 'depth': DEPTH}))({'inputs': inputs})


@pytest.mark.parametrize('inputs', [[without('depth')], {'rgb': [frame()['rgb']]}])
def test_training_needs_all_modalities_and_test_does_not(inputs: Any, caplog: Any) -> None:
    preprocessor = CENDataPreprocessor(listed({'rgb': RGB, 'depth': DEPTH}))
    with pytest.raises(ValueError, match=r"'depth' is missing, the batch has \['rgb'"):
        preprocessor({'inputs': inputs}, training=True)
    MMLogger.get_current_instance().addHandler(caplog.handler)
    preprocessor({'inputs': inputs})
    found = preprocessor({'inputs': inputs})
    MMLogger.get_current_instance().removeHandler(caplog.handler)
    assert caplog.messages == [
        "modalities ['depth'] are missing in the data: only ['rgb'] are used"
    ]
    whole = preprocessor({'inputs': {name: [frame()[name]] for name in ('rgb', 'depth')}})
    assert found['present'] == ['rgb']
    assert 'present' not in whole
    assert torch.equal(found['inputs'], whole['inputs'][:, :3])


@pytest.mark.parametrize('inputs', [torch.ones(2, 3, 6, 8), [torch.ones(3, 6, 8)]])
def test_nameless_inputs(inputs: Any) -> None:
    with pytest.raises(TypeError, match='without names of modalities: pack them by PackModalities'):
        CENDataPreprocessor(listed({'rgb': RGB, 'depth': DEPTH}))({'inputs': inputs})


# --- through the data loader


class Frames(Dataset):
    """Samples after a pipeline, whose pixels say which frame they are of."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict:
        ramp = np.arange(48, dtype=np.float32).reshape(6, 8, 1) + 100 * index
        return self.pipeline(
            {
                'modalities': {'a': ramp, 'b': np.concatenate([-ramp] * 3, -1)},
                'img_path': f'frame{index}',
                'img_shape': (6, 8),
                'ori_shape': (6, 8),
            }
        )


PLAIN = {
    'a': {'mean': [0.0], 'std': [1.0]},
    'b': {'mean': [0.0] * 3, 'std': [1.0] * 3},
}


class Echo(BaseModel):
    """Gives back each sample's input, flipped back, as its prediction."""

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'predict') -> list:
        for one, sample in zip(inputs, data_samples, strict=True):
            sample.set_field(one.flip(-1) if sample.flip else one, 'prediction')
        return list(data_samples)


class Average(BaseTTAModel):
    def merge_preds(self, data_samples_list: Any) -> list:
        return [
            (samples[0].img_path, torch.stack([s.prediction for s in samples]))
            for samples in data_samples_list
        ]


@pytest.mark.parametrize('workers', [0, 2])
def test_tta_through_the_data_loader(workers: int) -> None:
    def flip(prob: float) -> dict:
        return {
            'type': 'ForEachModality',
            'transforms': [{'type': 'RandomFlip', 'prob': prob}],
        }

    def resize(ratio: float) -> dict:
        return {
            'type': 'ForEachModality',
            'transforms': [
                {
                    'type': 'Resize',
                    'scale_factor': ratio,
                    'keep_ratio': True,
                    'interpolation': 'nearest',
                }
            ],
        }

    pipeline = stock.TestTimeAug(
        [[resize(1.0), resize(2.0)], [flip(0.0), flip(1.0)], [{'type': 'PackModalities'}]]
    )
    loader = DataLoader(
        Frames(pipeline), batch_size=2, num_workers=workers, collate_fn=pseudo_collate
    )
    model = Average(Echo(CENDataPreprocessor(listed(PLAIN))))
    seen: list[str] = []
    for batch in loader:
        assert len(batch['inputs']) == 4  # one mapping of lists for each augmentation
        for scale, chosen in ((1, slice(0, 2)), (2, slice(2, 4))):
            part = {key: value[chosen] for key, value in batch.items()}
            for path, predictions in model.test_step(part):
                seen.append(path)
                ramp = torch.arange(48.0).view(6, 8) + 100 * int(path[-1])
                ramp = ramp.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
                wanted = torch.stack([ramp] * 3 + [-ramp] * 3)  # (M*C, H, W)
                for prediction in predictions:  # flipped or not
                    assert prediction.equal(wanted)
    assert sorted(set(seen)) == [f'frame{i}' for i in range(4)]


def test_training_through_the_data_loader() -> None:
    crop = ForEachModality(
        [{'type': 'RandomCrop', 'crop_size': (5, 5)}, {'type': 'RandomFlip', 'prob': 0.5}]
    )
    pack = PackModalities()
    loader = DataLoader(
        Frames(lambda sample: pack(crop(sample))), batch_size=4, collate_fn=pseudo_collate
    )
    out = CENDataPreprocessor(listed(PLAIN), size=(6, 7))(next(iter(loader)), training=True)
    a, b = out['inputs'].view(4, 2, 3, 6, 7).unbind(1)
    assert a.equal(-b)
    assert (a[..., 5, :] == 0).all()
    assert (a[..., 5:] == 0).all()
    assert (a[:, 0] == a[:, 2]).all()
    assert (a[0, 0, :5, :5] != 0).any()
