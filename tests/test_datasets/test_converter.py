"""The NYUv2 converter, through its command line, on small files of the official layout."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from scipy.io import savemat

from mmcen import cli
from mmcen.datasets import NYUv2Dataset, data_place
from tests.command import Command, run_python

TOOL = ['-m', 'mmcen', 'convert-data', 'nyuv2']
TRAIN, TEST = 5, 3
Fails = Callable[..., None]


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """A folder with the three archives: 8 frames of 12x16, 9 raw labels to 40 classes."""
    return write_archives(tmp_path / 'official', frames=TRAIN + TEST, train=TRAIN)


def write_archives(
    folder: Path, frames: int, train: int, height: int = 12, width: int = 16
) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    with h5py.File(folder / 'nyu_depth_v2_labeled.mat', 'w') as source:
        chunked = {'compression': 'gzip'}
        images = rng.integers(0, 256, (frames, 3, width, height), dtype=np.uint8)
        source.create_dataset('images', data=images, chunks=(1, 3, width, height), **chunked)
        for name, low in (('depths', 0.7), ('rawDepths', 0.0)):
            depths = rng.uniform(low, 10, (frames, width, height)).astype(np.float32)
            source.create_dataset(name, data=depths, chunks=(1, width, height), **chunked)
        labels = rng.integers(0, 10, (frames, width, height), dtype=np.uint16)
        source.create_dataset('labels', data=labels, chunks=(1, width, height), **chunked)
    order = np.arange(1, frames + 1, dtype=np.uint16)[:, None]
    savemat(folder / 'splits.mat', {'trainNdxs': order[:train], 'testNdxs': order[train:]})
    savemat(
        folder / 'classMapping40.mat',
        {'mapClass': np.array([[40, 3, 22, 5, 1, 2, 38, 39, 40]], np.uint8)},
    )
    return folder


def command(folder: Path, *more: str) -> list[str]:
    words = [*TOOL, str(folder / 'nyu_depth_v2_labeled.mat')]
    words += ['--out', str(folder / 'out'), '--workers', '1']
    return [*words, '--expect-train', str(TRAIN), '--expect-test', str(TEST), *more]


def convert(folder: Path, *more: str) -> subprocess.CompletedProcess:
    return run_python(*command(folder, *more))


def edit(folder: Path, name: str, index: tuple, value: float) -> float:
    """Set one value of the source; gives the old one."""
    with h5py.File(folder / 'nyu_depth_v2_labeled.mat', 'r+') as source:
        old = source[name][index]
        source[name][index] = value
    return old


@pytest.fixture
def fails(archives: Path, capsys: pytest.CaptureFixture) -> Fails:
    """Runs the tool in this process, which is quicker, and expects an error and no splits."""

    def run(text: str, *more: str) -> None:
        assert cli.main(command(archives, *more)[2:]) == 1
        assert text in capsys.readouterr().err
        assert not (archives / 'out' / 'splits' / 'train.txt').exists()

    return run


@pytest.mark.parametrize('workers', ['1', '2'])
def test_every_pixel_arrives(archives: Path, workers: str) -> None:
    run = convert(archives, '--workers', workers)
    assert run.returncode == 0, run.stderr
    assert '8 frames (5 train, 3 test)' in run.stdout
    out = archives / 'out'
    with h5py.File(archives / 'nyu_depth_v2_labeled.mat') as source:
        for frame in range(8):
            name = f'{frame + 1:06d}.png'
            colour = cv2.imread(str(out / 'rgb' / name), cv2.IMREAD_UNCHANGED)[..., ::-1]
            assert np.array_equal(colour, source['images'][frame].transpose(2, 1, 0))
            depth = cv2.imread(str(out / 'depth' / name), cv2.IMREAD_UNCHANGED)
            assert depth.dtype == np.uint16
            assert np.abs(depth / 1000 - source['depths'][frame].T).max() < 5.1e-4
            mask = cv2.imread(str(out / 'masks' / name), cv2.IMREAD_UNCHANGED)
            classes = np.array([0, 40, 3, 22, 5, 1, 2, 38, 39, 40])
            assert np.array_equal(mask, classes[source['labels'][frame].T])
    assert (out / 'splits' / 'test.txt').read_text().split() == ['000006', '000007', '000008']
    assert not list(out.rglob('*.part'))


def test_dataset_reads_what_is_written(archives: Path) -> None:
    assert convert(archives, '--depth', 'raw').returncode == 0
    dataset = NYUv2Dataset(
        data_root=str(archives / 'out'),
        pipeline=[{'type': 'LoadModalities'}, {'type': 'LoadLabel'}],
    )
    assert len(dataset) == TRAIN
    sample = dataset[1]
    with h5py.File(archives / 'nyu_depth_v2_labeled.mat') as source:
        assert np.array_equal(sample['modalities']['rgb'], source['images'][1].transpose(2, 1, 0))
        metres = source['rawDepths'][1].T
    assert np.abs(sample['modalities']['depth'][..., 0] - metres).max() < 5.1e-4
    assert set(np.unique(sample['gt_seg_map'])) <= {255, 39, 2, 21, 4, 0, 1, 37, 38}


def test_stops_at_a_bad_frame_and_goes_on_after_its_repair(archives: Path, fails: Fails) -> None:
    old = edit(archives, 'depths', (4, 3, 2), 4200.0)
    fails('frame 5 has depths')
    first = archives / 'out' / 'masks' / '000001.png'
    stamp = first.stat().st_mtime_ns
    assert not (archives / 'out' / 'masks' / '000005.png').exists()
    (archives / 'out' / 'rgb' / '.000005.png.part').write_bytes(b'half')  # as a kill leaves it
    edit(archives, 'depths', (4, 3, 2), old)
    run = convert(archives)
    assert run.returncode == 0, run.stderr
    assert 'frames are finished already' in run.stdout
    assert first.stat().st_mtime_ns == stamp
    assert len(list((archives / 'out' / 'masks').iterdir())) == 8
    assert not list((archives / 'out').rglob('*.part'))
    assert convert(archives, '--overwrite').returncode == 0
    assert first.stat().st_mtime_ns > stamp


@pytest.mark.parametrize(('sign', 'code'), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_killed_and_run_again_equals_one_run(tmp_path: Path, sign: int, code: int) -> None:
    folder = write_archives(tmp_path / 'official', frames=500, train=300, height=30, width=40)
    counts = ('--expect-train', '300', '--expect-test', '200')
    with Command(*command(folder, *counts)) as process:
        while not list(folder.glob('out/masks/*.png')):
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(sign)
        assert process.wait(30).returncode == code
    assert 0 < len(list(folder.glob('out/masks/*.png'))) < 500
    assert not (folder / 'out' / 'splits' / 'train.txt').exists()
    assert convert(folder, *counts).returncode == 0
    whole = tmp_path / 'whole'
    assert convert(folder, *counts, '--out', str(whole)).returncode == 0
    files = [path.relative_to(whole) for path in whole.rglob('*') if path.is_file()]
    assert len(files) == 3 * 500 + 3
    assert all((whole / f).read_bytes() == (folder / 'out' / f).read_bytes() for f in files)


def test_refuses_to_mix_two_sources(archives: Path) -> None:
    assert convert(archives).returncode == 0
    run = convert(archives, '--depth', 'raw')
    assert run.returncode == 1
    assert 'was made from another source or in another way' in run.stderr
    assert convert(archives, '--depth', 'raw', '--overwrite').returncode == 0


@pytest.mark.parametrize(
    ('name', 'index', 'value', 'text'),
    [
        ('labels', (2, 0, 0), 10, 'frame 3 has raw label 10, but the class mapping ends at 9'),
        ('depths', (1, 0, 0), np.nan, 'frame 2 has depths nan'),
        ('depths', (7, 0, 0), -0.5, 'frame 8 has depths -0.5'),
    ],
)
def test_names_the_first_bad_frame(
    archives: Path, fails: Fails, name: str, index: tuple, value: float, text: str
) -> None:
    edit(archives, name, index, value)
    fails(text)


def test_damaged_source(archives: Path, fails: Fails) -> None:
    mat = archives / 'nyu_depth_v2_labeled.mat'
    with h5py.File(mat) as source:
        chunk = source['images'].id.get_chunk_info(2)
    content = bytearray(mat.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b'\xff' * chunk.size
    mat.write_bytes(content)
    fails('frame 3 cannot be read')
    mat.write_bytes(content[: len(content) // 2])
    fails('download it again')
    mat.write_bytes(b'<html>not found</html>')
    fails('download it again')
    mat.unlink()
    fails('nyu_depth_v2_labeled.mat is missing')


def test_other_layouts(archives: Path, fails: Fails) -> None:
    mat = archives / 'nyu_depth_v2_labeled.mat'
    with h5py.File(mat, 'r+') as source:
        labels = source['labels'][:-1]
        del source['labels']
        source['labels'] = labels
    fails('labels is uint16 of shape (7, 16, 12), but for 8 frames')
    with h5py.File(mat, 'r+') as source:
        del source['labels']
    fails('has no labels')


def test_splits_and_mapping(archives: Path, fails: Fails) -> None:
    fails('has 5 frames to train, but the official split has 795', '--expect-train', '795')
    splits, mapping = archives / 'splits.mat', archives / 'classMapping40.mat'
    savemat(splits, {'trainNdxs': [[1], [2], [3], [4], [6]], 'testNdxs': [[6], [7], [8]]})
    fails('frame 5 is the first that is missing or in both splits')
    savemat(splits, {'trainNdxs': [[1], [2], [3], [4], [5]], 'testNdxs': [[6], [7], [8]]})
    savemat(mapping, {'mapClass': [[41, 1]]})
    fails('mapClass is not within 1..40')
    mapping.write_bytes(b'nothing')
    fails('cannot be read')
    mapping.unlink()
    fails('classMapping40.mat is missing')


def test_help_says_what_it_takes_and_writes() -> None:
    words = [*TOOL, '--help']
    text = run_python(*words).stdout
    for word in ('splits.mat', 'classMapping40.mat', 'millimetres', '--overwrite', 'interrupted'):
        assert word in text


def test_official_split_and_mapping(tmp_path: Path) -> None:
    """The real splits.mat and classMapping40.mat, with 1449 small frames."""
    meta = Path(data_place('nyuv2'), 'meta')
    if not meta.is_dir():
        pytest.skip(f'no official archives in {meta}: MMCEN_DATA names no folder that has them')
    folder = write_archives(tmp_path / 'official', frames=1449, train=795, height=3, width=4)
    edit(folder, 'labels', (0, 0, 0), 894)
    words = [*command(folder)[:-4], '--workers', '2']
    words += ['--splits', str(meta / 'splits.mat'), '--mapping', str(meta / 'classMapping40.mat')]
    done = run_python(*words)
    assert done.returncode == 0, done.stderr
    assert '1449 frames (795 train, 654 test)' in done.stdout
    for name in ('train', 'test'):
        made = (folder / 'out' / 'splits' / f'{name}.txt').read_text().split()
        assert made == (meta.parent / 'splits' / f'{name}.txt').read_text().split()
