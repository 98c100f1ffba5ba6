"""benchmark.py --data: the rival loads what mmcen loads, and the tool tells what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config

from mmcen.datasets import ForEachModality
from projects.paper import benchmark
from projects.paper.benchmarking import loading
from projects.paper.benchmarking.loading import LoadingVariant, LoadingWorkload
from tests.command import run_python
from tests.frames import write_frames
from tests.training import ROOT

MEAN, STD = np.array([0.485, 0.456, 0.406]) * 255, np.array([0.229, 0.224, 0.225]) * 255
CONFIG = f"""
_base_ = ['{ROOT}/configs/_base_/datasets/nyuv2.py', '{ROOT}/configs/_base_/default_runtime.py']
model = dict(data_preprocessor=dict(
    type='CENDataPreprocessor',
    modalities={{{{_base_.modalities}}}},
    size=None))
"""
PIPELINE = 'train_dataloader.dataset.pipeline'


def scale_and_crop(ratios: tuple[float, float], crop: int, side: int) -> dict[str, Any]:
    """Overrides of the config's augmentation."""
    geometry = f'{PIPELINE}.2.transforms'
    return {
        f'{geometry}.0.ratio_range': ratios,
        f'{geometry}.0.crop_size': (crop, crop),
        f'{geometry}.0.min_side': side,
        f'{geometry}.1.size': (crop, crop),
    }


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Five frames of 48x64 and a config that trains on crops of 40."""
    write_frames(tmp_path, 5, 48, 64)
    overrides = {
        **scale_and_crop((0.5, 2.0), 40, 32),
        'train_dataloader.dataset.data_root': str(tmp_path),
        'train_dataloader.batch_size': 2,
    }
    (tmp_path / 'base.py').write_text(CONFIG)
    cfg = Config.fromfile(tmp_path / 'base.py')
    cfg.merge_from_dict(overrides)
    cfg.dump(tmp_path / 'tiny.py')
    return tmp_path


def variants(cfg: Config) -> list[LoadingVariant]:
    work = LoadingWorkload(cfg, 1, 1)
    return [work.build(name) for name in ('ours', 'official')]


def loaded(
    ours: LoadingVariant, rival: LoadingVariant, index: int, seed: int
) -> tuple[dict, dict, dict]:
    """A frame by ours and by the rival with the same random numbers, and what ours noted."""
    np.random.seed(seed)
    sample = ours.load(index)
    facts = sample['data_samples'].metainfo
    np.random.seed(seed)
    crop = ours.dataset.pipeline.transforms[2].transforms.transforms[0]
    height, width = facts['ori_shape']
    (wide, _), (rows, columns) = crop._random_size_and_window(width, height, None)
    # the rival mirrors before it crops
    left = wide - columns.stop if facts['flip'] else columns.start
    numbers = [int(facts['flip']), rows.start, left]
    with mock.patch('numpy.random.randint', side_effect=numbers):
        theirs = rival.load(index)
    image = sample['inputs']['rgb'].permute(1, 2, 0).numpy()
    return (
        {
            'rgb': (image - MEAN) / STD,
            'depth': sample['inputs']['depth'][0].numpy() / 5,
            'mask': sample['data_samples'].gt_sem_seg.data[0].numpy(),
        },
        {name: tensor.numpy() for name, tensor in theirs.items()},
        facts,
    )


def assert_same(ours: dict, theirs: dict, level: float) -> None:
    """Colour within ``level`` of 255, depth but for rounding, labels exactly."""
    assert np.abs((theirs['rgb'].transpose(1, 2, 0) - ours['rgb']) * STD).max() <= level + 1e-4
    for channel in theirs['depth']:
        assert np.abs(channel - ours['depth']).max() < 1e-6
    assert np.array_equal(theirs['mask'], ours['mask'])


@pytest.mark.parametrize('ratio', [1.0, 1.25, 1.875])
def test_the_rival_loads_the_same(made: Path, ratio: float) -> None:
    """At scales that give whole numbers of pixels; at others mmcv rounds the size and scales to
    that, where the official code scales by the number that was drawn."""
    cfg = Config.fromfile(made / 'tiny.py')
    cfg.merge_from_dict(scale_and_crop((ratio, ratio), 40, 32))
    both, flips = variants(cfg), set()
    for seed in range(6):
        ours, theirs, facts = loaded(*both, seed % 5, seed)
        assert_same(ours, theirs, 1)
        flips.add(facts['flip'])
    assert flips == {True, False}


def test_real_frames_are_the_same(data_root: Path) -> None:
    """Cropped, and padded: by the rival on all sides."""
    cfg = Config.fromfile(ROOT / 'configs' / 'cen' / 'nyud_refinenet_r101.py')
    cfg.train_dataloader.dataset.data_root = str(data_root)
    for index, ratio in enumerate((1.25, 1.5, 0.75)):
        cfg.merge_from_dict(scale_and_crop((ratio, ratio), 500, 350))
        ours, theirs, facts = loaded(*variants(cfg), index, index)
        if ratio > 1:
            assert_same(ours, theirs, 1)
            continue
        inner = slice(70, 430), slice(10, 490)
        assert (theirs['mask'] == 255).sum() >= 500 * 500 - 360 * 480
        theirs = {name: array[(..., *inner)] for name, array in theirs.items()}
        kept = slice(0, 360), slice(20, 500) if facts['flip'] else slice(0, 480)
        assert_same({name: array[kept] for name, array in ours.items()}, theirs, 1)


# --- figures


def test_figures_by_hand() -> None:
    rows = loading.figures({'ours': [2.0, 4.0, 3.0], 'official': [6.0, 8.0, 9.0]}, 2)
    assert rows['ours']['median'] == 1.5
    assert rows['ours']['samples_per_second'] == pytest.approx(2 / 3)
    assert rows['ours']['speedup'] == {'q1': 2.5, 'median': 3, 'q3': 3}
    assert rows['official']['speedup']['median'] == 1
    alone = loading.figures({'ours': [4.0, 4.0], 'cached': [1.0, 2.0]}, 1)
    assert alone['ours']['speedup']['median'] == 1
    assert alone['cached']['speedup']['median'] == 3


class Slow(BaseTransform):
    """Takes a second of a clock that it moves itself."""

    def __init__(self, clock: list[float]) -> None:
        self.clock = clock

    def transform(self, results: dict) -> dict:
        self.clock[0] += 1
        return results


def test_time_of_a_transform_is_its_own() -> None:
    clock = [0.0]
    inner = Slow(clock)
    outer = ForEachModality([inner])
    watch = loading.Watch(lambda: clock[0])
    for step in (outer, inner):
        watch.over(step)
    modalities = {name: np.zeros((2, 2, 1)) for name in 'abc'}
    for _ in range(2):  # ForEachModality tidies up after each sample
        outer({'modalities': dict(modalities)})
    assert watch.spent == {'Slow': 6, 'ForEachModality': 0}


def test_all_variants_load_the_same_frames_in_turn(made: Path) -> None:
    work = LoadingWorkload(Config.fromfile(made / 'tiny.py'), 2, 4)
    ours, cached = (work.build(name) for name in ('ours', 'cached'))
    for task in work.tasks:
        ours.prepare(task)
        cached.prepare(task)
        results = [[one.run(task) for _ in range(3)] for one in (ours, cached)]
        for a, b in zip(*results, strict=True):
            assert a.equal(b)
        assert not results[0][0].equal(results[0][1])
    assert results[0][0].shape == (2, 6, 40, 40)
    assert len(list(cached.dataset.cache.folder.glob('*/*.npy'))) == 3 * 4


# --- command line


def check(result: dict, runs: int, names: list[str]) -> None:
    assert list(result['loading']) == ['sample', 'input']
    for rows in result['loading'].values():
        assert list(rows) == names
        for row in rows.values():
            assert len(row['times']) == runs
            assert 0 < row['median'] <= row['p95']
            assert row['samples_per_second'] == pytest.approx(1 / row['median'])
            assert 0 < row['speedup']['q1'] <= row['speedup']['q3']
    steps = ['LoadModalities', 'LoadLabel', 'RandomScaleCrop', 'Pad', 'RandomFlip']
    steps += ['ForEachModality', 'PackModalities', 'batch, data preprocessor']
    assert list(result['transforms']) == steps
    assert min(result['transforms'].values()) > 0
    assert {'device_name', 'commit', 'opencv', 'python'} <= set(result['setting'])


def test_command_line(made: Path, tmp_path: Path) -> None:
    arguments = [str(made / 'tiny.py'), '--runs', '2', '--warmup', '1', '--clock', 'cpu']
    command = ['projects/paper/benchmark.py', '--data', *arguments]
    out = tmp_path / 'out.json'
    done = run_python(*command, '--out', out)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    check(result, 2, ['ours', 'cached', 'official'])
    expected = {'batch': 2, 'frames': 5, 'runs': 2, 'warmup': 1, 'clock': 'cpu'}
    assert expected.items() <= result['setting'].items()
    for words in ('x as fast as official', 'LoadModalities', 'samples/s', '5 frames'):
        assert words in done.stdout


def test_several_sets(made: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """As the recipe says, each with a cache of its own."""
    cfg = Config.fromfile(made / 'tiny.py')
    one, out = cfg.train_dataloader.dataset, tmp_path / 'out.json'
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[one, one])
    cfg.dump(made / 'two.py')
    arguments = f'x --data {made}/two.py --runs 1 --warmup 0 --out {out} --cfg-options'
    caches = [f'train_dataloader.dataset.datasets.{i}.cache=memory' for i in (0, 1)]
    monkeypatch.setattr(sys, 'argv', [*arguments.split(), *caches])
    benchmark.main()
    check(json.loads(out.read_text()), 1, ['ours'])
    cfg.merge_from_dict(dict(option.split('=') for option in caches))
    variant = LoadingWorkload(cfg, 1, 4).build('ours')
    variant.prepare('sample')
    files = [len(list(one.cache.folder.glob('*/*.npy'))) for one in variant.dataset.datasets]
    assert sum(files) == 3 * 4
    assert min(files) > 0


def test_real_frames(data_root: Path, tmp_path: Path, monkeypatch: Any) -> None:
    config, out = ROOT / 'configs' / 'cen' / 'nyud_refinenet_r101.py', tmp_path / 'out.json'
    arguments = f'x --data {config} --runs 2 --warmup 0 --batch 1 --compare official --out {out}'
    root = f'train_dataloader.dataset.data_root={data_root}'
    monkeypatch.setattr(sys, 'argv', [*arguments.split(), '--cfg-options', root])
    benchmark.main()
    result = json.loads(out.read_text())
    check(result, 2, ['ours', 'official'])
    assert result['setting']['frames'] == 2


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--compare', 'list_of_streams'], 'list_of_streams is none of cached, official'),
        (
            ['--compare', 'official', '--cfg-options', 'train_dataloader.dataset.modalities=[rgb]'],
            'official is for colour and depth as they are, labels, and a square RandomScaleCrop',
        ),
        (
            [
                '--compare',
                'official',
                '--cfg-options',
                f'{PIPELINE}.2.transforms.0.cat_max_ratio=0.7',
            ],
            'official is for colour and depth as they are',
        ),
        (['--cfg-options', 'train_dataloader.dataset.data_root=nowhere'], 'there is no split file'),
        (['--out', 'no/such/folder.json'], '--out: the folder no/such does not exist'),
    ],
)
def test_complaints(made: Path, arguments: list[str], message: str, monkeypatch: Any, capsys: Any
                    ) -> None:  # fmt: skip
    monkeypatch.setattr(sys, 'argv', ['x', '--data', str(made / 'tiny.py'), *arguments])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert message in capsys.readouterr().err


def test_the_official_code_makes_no_hha(made: Path) -> None:
    cfg = Config.fromfile(ROOT / 'configs' / 'cen' / 'nyud_refinenet_r50_hha.py')
    cfg.train_dataloader.dataset.data_root = str(made)
    assert loading.plan(cfg, 1, 1, None)[1] == ['ours', 'cached']


def test_nothing_to_load(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    (tmp_path / 'empty.py').write_text('model = dict()')
    monkeypatch.setattr(sys, 'argv', ['x', '--data', str(tmp_path / 'empty.py')])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert 'the config has no train_dataloader' in capsys.readouterr().err


def test_other_data_sets_are_measured_alone() -> None:
    """Rendered rooms are no files, and have no official way."""
    cfg = Config.fromfile(ROOT / 'configs' / 'cen' / 'rooms_lwrefinenet_r18.py')
    work, names = loading.plan(cfg, 1, 2, None)
    assert names == ['ours']
    variant = work.build('ours')
    variant.prepare('input')
    assert torch.isfinite(variant.run('input')).all()
