"""projects/paper/gpu_day.py rehearsed on a CPU, and what its bundle is made of."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from projects.paper.gpu import frames
from projects.paper.gpu.results import Results
from tests.command import run_python
from tests.frames import write_frames

ROOT = Path(__file__).parents[1]
TOOL = ROOT / 'projects' / 'paper' / 'gpu_day.py'


@pytest.fixture(scope='module')
def archive(tmp_path_factory):
    """A file of frames as the bundle has it, of noise at the size of NYUv2."""
    root = tmp_path_factory.mktemp('nyuv2')
    write_frames(root, 4, 480, 640)
    (root / 'splits' / 'train.txt').write_text('0\n1')
    (root / 'splits' / 'test.txt').write_text('2\n3')
    path = root / 'frames.zip'
    frames.pack(root, path)
    return root, path


def rehearse(out, *options):
    """Rows of a rehearsal, and the log."""
    command = [TOOL, '--quick', '--out', out, *options]
    done = run_python(*command, cwd=out.parent)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (out / 'results.jsonl').read_text().splitlines()]
    return rows, (out / 'log.txt').read_text()


def test_frames_lose_nothing_but_size(archive):
    root, path = archive
    train = frames.load(path, 'train', 'cpu')
    test = frames.load(path, 'test', 'cpu', limit=1)
    assert train.rgb.shape == (2, 3, 240, 320)
    assert train.label.shape == (2, 1, 240, 320)
    assert (test.rgb.shape, test.label.shape) == ((1, 3, 240, 320), (1, 1, 480, 640))
    label = cv2.imread(f'{root}/masks/2.png', cv2.IMREAD_UNCHANGED)
    expected = np.where(label == 0, 255, label.astype(int) - 1)
    assert np.array_equal(test.label[0, 0].numpy(), expected)
    millimetres = cv2.imread(f'{root}/depth/2.png', cv2.IMREAD_UNCHANGED)[::2, ::2]
    metres = test.inputs(slice(0, 1))['depth'][0, 0].numpy()
    assert np.abs(metres - millimetres / 1000).max() <= frames.METRES / 2 + 1e-6


def test_augmentation_is_the_same_for_all_modalities():
    """Scale, crop and flip of a picture of coordinates: windows of the frame, aligned."""
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing='ij')
    picture = torch.stack([x, y])[None].expand(64, -1, -1, -1)
    generator = torch.Generator().manual_seed(0)
    grid = frames.random_crops(64, (24, 32), (1.0, 1.6), generator)
    crop = F.grid_sample(picture, grid, 'bilinear', padding_mode='border', align_corners=False)
    step = crop[:, 0, 12, 20] - crop[:, 0, 12, 19]
    assert (step.abs() <= 1.001).all()
    assert (step.abs() >= 1 / 1.6 - 1e-3).all()
    assert 16 < int((step < 0).sum()) < 48  # flipped
    torch.testing.assert_close(step.abs(), crop[:, 1, 13, 9] - crop[:, 1, 12, 9])
    one = frames.random_crops(1, (24, 32), (1.0, 1.0), generator)
    same = F.grid_sample(picture[:1], one, 'nearest', align_corners=False)
    assert any(torch.equal(same, known) for known in (picture[:1], picture[:1].flip(3)))


def test_results_are_complete_at_every_second(tmp_path):
    results = Results(tmp_path)
    results.add('tests', test='a::b', outcome='FAILED')
    results.add('training', method='CEN', epoch=1, loss=2.5)
    results.add('training', method='CEN', epochs=1, mIoU=31.25)
    again = Results(tmp_path)
    again.add('speed', figure='peak', bf16=1e12)
    text = (tmp_path / 'summary.md').read_text()
    assert '- FAILED: a::b' in text
    assert '31.25' in text
    assert text.count('| CEN |') == 1
    assert '| 1e+12 |' in text


@pytest.mark.long
def test_methods_train_side_by_side(archive, tmp_path):
    methods = ['CEN, budget', 'self-attention']
    rows, log = rehearse(
        tmp_path / 'out', '--parts', 'training', '--frames', archive[1], '--methods', *methods,
        '--seconds', 'training=1200',
    )  # fmt: skip
    ended = {row['method']: row for row in rows if 'mIoU' in row}
    assert set(ended) == set(methods), log
    assert ended['CEN, budget']['exchanged'] == pytest.approx(0.3, abs=0.03)
    assert ended['self-attention']['exchanged'] == 0
    assert all(row['epochs'] >= 1 for row in ended.values())
    assert len({row['epochs'] for row in ended.values()}) == 1


def test_a_part_whose_time_is_over_keeps_its_figures(archive, tmp_path):
    rows, _ = rehearse(
        tmp_path / 'out', '--parts', 'training', '--frames', archive[1], '--methods', 'CEN',
        '--seconds', 'training=1',
    )  # fmt: skip
    assert rows[-1]['note'] == 'CEN: the time was over'


@pytest.mark.long
def test_speed(tmp_path):
    models = ['EfficientNet-Lite0', 'U-Net', 'SegFormer-B0']
    rows, log = rehearse(
        tmp_path / 'out', '--parts', 'speed', '--models', *models, '--seconds', 'speed=1800'
    )
    figures = [row for row in rows if 'figure' in row]
    assert not [row for row in figures if row['figure'] == 'failed'], figures
    kinds = {'peak', 'time', 'waits', 'fps', 'streams', 'official_step', 'compiled'}
    assert {row['figure'] for row in figures} == kinds, log
    times = [row for row in figures if row['figure'] == 'time' and row['variant'] == 'ours']
    assert {row['model'] for row in times} == set(models)
    assert all(row['ms'] > 0 and row['tflops'] > 0 for row in times)
    for model in ('EfficientNet-Lite0', 'SegFormer-B0'):
        own = [row for row in figures if row['figure'] == 'waits' and row['model'] == model]
        ours, off = (row['found'] for row in own)
        assert ours == off


def test_without_a_gpu_it_says_how_to_rehearse(tmp_path):
    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    command = [TOOL, '--out', tmp_path, '--parts', 'speed']
    done = run_python(*command)
    assert done.returncode == 2
    assert '--quick' in done.stderr
