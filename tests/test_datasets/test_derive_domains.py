"""The derivation of domains, through its command line: a plane, real frames, a kill, errors."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmcen.datasets import NYUv2Dataset, TaskonomyDataset
from mmcen.datasets.domains import euclidean_depth, pixel_rays
from tests.command import Command, run_python
from tests.converters import command

TOOL = ['-m', 'mmcen', 'convert-data', 'derive-domains']
SIZE = (48, 64)
CAMERA = np.array([[60.0, 0, 31.0], [0, 60.0, 24.0], [0, 0, 1]])
NORMAL = np.array([0.4, 0.2, -np.sqrt(1 - 0.2)])
GEOMETRY = ['depth_zbuffer', 'depth_euclidean', 'normal', 'reshading', 'edge_occlusion',
            'principal_curvature']  # fmt: skip
DATASET = """
dataset = dict(
    type='MultiModalSegDataset', data_root={root!r}, labels=None,
    modalities=[dict(name='rgb', dir='rgb'), dict(name={name!r}, dir='depth', unit='mm')])
train_dataloader = dict(dataset=dict(ann_file='train.txt', pipeline=[], **dataset))
val_dataloader = dict(dataset=dict(ann_file='val.txt', **dataset))
test_dataloader = val_dataloader
"""


def plane() -> np.ndarray:
    """Z depth of a slanted wall, 2 m away."""
    return (-2 / (pixel_rays(*SIZE, CAMERA) @ NORMAL)).astype(np.float32)


def write_set(root: Path, frames: int, depth_name: str = 'depth') -> Path:
    """Frames of that wall without labels, every third of them to validate; gives its config."""
    rng = np.random.default_rng(0)
    for folder in ('rgb', 'depth'):
        (root / folder).mkdir(parents=True)
    names = [f'{i:03d}' for i in range(frames)]
    for name in names:
        colour = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        cv2.imwrite(str(root / 'rgb' / f'{name}.png'), colour)
        millimetres = np.rint(plane() * 1000).astype(np.uint16)
        cv2.imwrite(str(root / 'depth' / f'{name}.png'), millimetres)
    (root / 'val.txt').write_text('\n'.join(names[::3]))
    (root / 'train.txt').write_text('\n'.join(n for i, n in enumerate(names) if i % 3))
    config = root / 'rgbd.py'
    config.write_text(DATASET.format(root=str(root), name=depth_name))
    return config


def of_set(config: Path, *more: str) -> list[str]:
    camera = [CAMERA[0, 0], CAMERA[1, 1], CAMERA[0, 2], CAMERA[1, 2]]
    words = ['--config', str(config), '--out', str(config.parent / 'out'), '--intrinsics']
    words += [*map(str, camera), '--intrinsics-size', str(SIZE[1]), str(SIZE[0])]
    return [*TOOL, *words, '--workers', '1', *more]


def derive(words: list[str]) -> str:
    done = run_python(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def read(out: Path, domains: list[str], split: str, **kwargs) -> TaskonomyDataset:
    load = [dict(type='LoadModalities'), dict(type='LoadLabel', optional=True)]
    return TaskonomyDataset(
        domains, data_root=str(out), ann_file=f'splits/{split}.txt', pipeline=load, **kwargs
    )


def test_a_wall(tmp_path: Path) -> None:
    """All geometry of a plane in closed form, after the way through the files."""
    config = write_set(tmp_path, 3)
    assert '3 frames of 8 domains' in derive(of_set(config))
    assert (tmp_path / 'out/splits/val.txt').read_text().split() == ['point_1_view_0']
    assert not (tmp_path / 'out/splits/test.txt').exists()  # it is val
    assert not (tmp_path / 'out/segment_semantic').exists()  # there are no labels
    dataset = read(tmp_path / 'out', GEOMETRY, 'train')
    assert len(dataset) == 2
    wall = dataset[1]['modalities']
    depth = plane()
    np.testing.assert_allclose(wall['depth_zbuffer'][..., 0], depth, atol=0.6 / 512 + 5e-4)
    np.testing.assert_allclose(
        wall['depth_euclidean'][..., 0], euclidean_depth(depth, CAMERA), atol=0.6 / 512 + 1e-3
    )
    np.testing.assert_allclose(wall['normal'], np.broadcast_to(NORMAL, (*SIZE, 3)), atol=0.03)
    np.testing.assert_allclose(wall['reshading'], -NORMAL[2], atol=0.03)
    assert wall['edge_occlusion'].max() == 0
    assert np.abs(wall['principal_curvature']).mean() < 0.15


def test_real_frames(data_root: Path, tmp_path: Path) -> None:
    """What is the set's own arrives resized, what follows from it is of sense, and read again."""
    out, sheet = tmp_path / 'out', tmp_path / 'sheet.png'
    words = [*TOOL, '--data-root', str(data_root), '--out', str(out)]
    words += ['--size', '60', '80', '--limit', '1', '--workers', '2', '--sheet', str(sheet)]
    assert '2 frames of 9 domains' in derive(words)
    assert cv2.imread(str(sheet)).std() > 10
    domains = [path.name for path in out.iterdir() if path.is_dir() and path.name != 'splits']
    for split in ('train', 'test'):
        sample = read(out, domains, split, labels=True, metainfo=dict(classes=('x',) * 40))[0]
        load = [dict(type='LoadModalities'), dict(type='LoadLabel')]
        source = NYUv2Dataset(split, str(data_root), pipeline=load)[0]
        made, own = sample['modalities'], source['modalities']
        assert Path(source['img_path']).stem.lstrip('0') in Path(sample['img_path']).stem.split('_')
        area = cv2.resize(own['rgb'], (80, 60), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(made['rgb'], area)
        # rows 4 and 3 of every 8 are at the middle of a pixel of the small picture
        depth = made['depth_zbuffer'][..., 0]
        np.testing.assert_allclose(depth, own['depth'][4::8, 4::8, 0], atol=0.6 / 512)
        np.testing.assert_array_equal(sample['gt_seg_map'], source['gt_seg_map'][4::8, 4::8])
        assert (made['depth_euclidean'][..., 0] >= depth - 2 / 512).all()
        length = np.linalg.norm(made['normal'], axis=2)
        assert np.percentile(np.abs(length - 1), 95) < 0.02
        flat = np.abs(made['principal_curvature']).max(2) < 1
        assert 0.1 < flat.mean() < 1


@pytest.mark.parametrize(
    'how', [pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGKILL]
)
def test_stopped_and_gone_on_with(tmp_path: Path, how: signal.Signals) -> None:
    config = write_set(tmp_path, 30)
    rgb, out = tmp_path / 'out/rgb', tmp_path / 'out'
    with Command(*of_set(config)) as tool:
        while len(list(rgb.glob('*.png'))) < 3 and tool.poll() is None:
            time.sleep(0.01)
        tool.send_signal(how)
        stopped = tool.wait(60)
    if how == signal.SIGTERM:
        assert stopped.returncode == 130
        assert 'stopped: run the same command again to continue' in stopped.stderr
    time.sleep(0.5)
    last = list(out.rglob('*.png'))
    time.sleep(0.5)
    assert len(list(out.rglob('*.png'))) == len(last)  # a killed tool's workers leave, too
    whole = {path: path.stat().st_mtime_ns for path in last if cv2.imread(str(path)) is not None}
    assert len(whole) == len(last) < 30 * 8
    assert not (out / 'splits/train.txt').exists()
    (rgb / '.point_9_view_0_domain_rgb.png.part').write_bytes(b'half')  # as a kill leaves it
    assert 'frames are finished already' in derive(of_set(config))
    assert len(list(out.rglob('point_*.png'))) == 30 * 8
    assert not list(out.rglob('.*.part'))
    first = rgb / 'point_1_view_0_domain_rgb.png'
    assert first.stat().st_mtime_ns == whole[first]
    assert len(read(out, ['rgb', 'normal'], 'train')) == 20


def fails(words: list[str], monkeypatch: pytest.MonkeyPatch, code: int = 1) -> None:
    """In this process, which is quicker; no worker is started before an error."""
    monkeypatch.setattr(signal, 'signal', lambda *_: None)
    assert command(*words[2:]) == code


def test_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    config = write_set(tmp_path / 'a', 3)
    (tmp_path / 'a/out').mkdir()
    (tmp_path / 'a/out/source.json').write_text('{"size": [8, 8]}')
    other = write_set(tmp_path / 'b', 3, depth_name='distance')
    empty = tmp_path / 'empty.py'
    empty.write_text('model = dict()')
    nyu = [*TOOL, '--data-root', str(tmp_path)]
    for words, code, text in (
        (of_set(config), 1, 'was made by other settings'),
        (of_set(config, '--domains', 'segment_semantic'), 1, 'but the set has no labels'),
        (of_set(config, '--domains', 'thermal'), 2, "invalid choice: 'thermal'"),
        (of_set(config, '--workers', '0'), 2, '--workers 0 is below 1'),
        (of_set(config, '--size', '4', '64'), 2, 'are at least 8 each way'),
        (of_set(other), 1, 'it needs rgb of kind colour and depth of kind depth'),
        (of_set(empty), 1, 'has no train_dataloader with a dataset'),
        (nyu, 1, 'there is no split file'),
    ):
        fails(words, monkeypatch, code)
        assert text in capsys.readouterr().err
