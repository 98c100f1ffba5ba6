"""SUN RGB-D, from archives of the official layout over the command lines to an evaluation."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from mmcen.datasets import SUNRGBDDataset
from tests.converters import (
    call,
    contents,
    interrupt_and_go_on,
    picture,
    save,
    stored,
    train_small,
    zip_folder,
)

TOOL = 'sunrgbd'
DISK = '/n/fs/sun3d/data/SUNRGBD/'  # of the authors, in all of their files
FOLDERS = (
    'kv1/NYUdata/NYU0001', 'kv2/kinect2data/000002_2014-05-26_14-23-37_rgbf000103-resize',
    'realsense/lg/2014_10_21-18_15_22-1311000073', 'xtion/sun3ddata/mit_32/bed/0001',
    'kv1/b3dodata/img_0063', 'xtion/xtion_align_data/2014_11_07_01', 'kv2/align_kv2/2014-12-16_01',
)  # fmt: skip
SIZES = {'kv1': (43, 57), 'kv2': (53, 73), 'realsense': (54, 68), 'xtion': (44, 59)}
TRAIN = (0, 2, 3, 5)
COUNTS = ('--expect-train', '4', '--expect-test', '3', '--workers', '1')


def size_of(frame: int) -> tuple[int, int]:
    return SIZES[FOLDERS[frame].partition('/')[0]]


def metres(frame: int, filled: bool) -> np.ndarray:
    """Depth as the camera saw it, in millimetres: some of it not measured, some beyond 8 m."""
    depth = picture(*size_of(frame), seed=frame, top=10_400, dtype='uint16')
    depth[5:9] = 0
    return np.maximum(depth, 700) if filled else depth


def label(frame: int) -> np.ndarray:
    return picture(*size_of(frame), seed=10 + frame, top=38)


def cells(values: list) -> np.ndarray:
    """A cell array of MATLAB."""
    array = np.empty((1, len(values)), object)
    array[0] = values
    return array


def write_meta(toolbox: Path, **changed: list) -> None:
    paths = [f'{DISK}{folder}/image/{i:07d}.jpg' for i, folder in enumerate(FOLDERS)]
    fields = {'rgbpath': paths, 'depthname': [f'{i:07d}.png' for i in range(7)]} | changed
    meta = np.empty((1, 7), [(name, object) for name in fields])
    for name, values in fields.items():
        meta[name] = cells(values)
    savemat(toolbox / 'Metadata' / 'SUNRGBDMeta.mat', {'SUNRGBDMeta': meta})


def write_splits(toolbox: Path, train: tuple = TRAIN, test: tuple = (1, 4, 6)) -> None:
    splits = {'alltrain': train, 'alltest': test}
    savemat(
        toolbox / 'traintestSUNRGBD' / 'allsplit.mat',
        {name: cells([DISK + FOLDERS[i] for i in of_split]) for name, of_split in splits.items()},
    )


def write_labels(toolbox: Path, labels: list[np.ndarray]) -> None:
    with h5py.File(toolbox / 'Metadata' / 'SUNRGBD2Dseg.mat', 'w') as file:
        held = [
            file.create_dataset(f'#refs#/{i}', data=one.T, compression='gzip').ref
            for i, one in enumerate(labels)
        ]
        shape = (len(held), 1)
        column = file.create_dataset('SUNRGBD2Dseg/seglabel', shape, dtype=h5py.ref_dtype)
        column[:, 0] = held


def write_archives(folder: Path) -> Path:
    """Seven frames of four cameras, extracted, and the toolbox."""
    for i, name in enumerate(FOLDERS):
        place = folder / 'SUNRGBD' / name
        save(place / 'image' / f'{i:07d}.jpg', picture(*size_of(i), 3, seed=i))
        for depths, filled in (('depth', False), ('depth_bfx', True)):
            depth = metres(i, filled)
            rotated = (depth << 3) | (depth >> 13)  # of 16 bits
            save(place / depths / f'{i:07d}.png', rotated)
    toolbox = folder / 'SUNRGBDtoolbox'
    for name in ('Metadata', 'traintestSUNRGBD'):
        (toolbox / name).mkdir(parents=True)
    write_meta(toolbox)
    write_splits(toolbox)
    write_labels(toolbox, [label(i) for i in range(7)])
    return folder


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archives(tmp_path_factory.mktemp('official'))


@pytest.fixture
def desk(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the archives in ``official``."""
    shutil.copytree(made, tmp_path / 'official')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('MMCEN_DATA', raising=False)
    return tmp_path


@pytest.mark.parametrize('depths', ['filled', 'raw'])
def test_every_pixel_arrives(desk: Path, capsys: pytest.CaptureFixture, depths: str) -> None:
    """From the zips and from the folders alike; a zip goes before a folder that is part of it."""
    words = (TOOL, 'official', '--depth', depths, *COUNTS)
    assert call(*words) == 0
    assert '7 frames (4 train, 3 test) in data/sunrgbd' in capsys.readouterr().out
    out = desk / 'data' / 'sunrgbd'
    for i in range(7):
        name = f'{i + 1:06d}'
        colour = desk / 'official' / 'SUNRGBD' / FOLDERS[i] / 'image' / f'{i:07d}.jpg'
        assert (out / 'rgb' / f'{name}.jpg').read_bytes() == colour.read_bytes()
        depth = stored(out / 'depth' / f'{name}.png')
        assert depth.dtype == np.uint16
        assert np.array_equal(depth, np.minimum(metres(i, depths == 'filled'), 8000))
        assert np.array_equal(stored(out / 'masks' / f'{name}.png'), label(i))
    assert (out / 'splits' / 'train.txt').read_text().split() == [f'{i + 1:06d}' for i in TRAIN]
    for archive in ('SUNRGBD', 'SUNRGBDtoolbox'):
        zip_folder(desk / 'official' / archive, desk / 'official' / f'{archive}.zip')
        (desk / 'official' / archive).mkdir()
    assert call(*words, '--out', 'zipped', '--workers', '2') == 0
    assert contents(desk / 'zipped') == contents(out)


def test_archive_to_two_steps_and_an_evaluation(desk: Path) -> None:
    assert call(TOOL, 'official', *COUNTS) == 0
    dataset = SUNRGBDDataset(
        split='test', pipeline=[{'type': 'LoadModalities'}, {'type': 'LoadLabel'}]
    )
    for sample, i in zip(dataset, (1, 4, 6), strict=True):
        assert sample['modalities']['rgb'].shape == (*size_of(i), 3)
        found = sample['modalities']['depth'][..., 0]
        assert np.allclose(found, np.minimum(metres(i, True) / 1000, 8))
        expected = np.where(label(i) == 0, 255, label(i) - 1)
        assert np.array_equal(sample['gt_seg_map'], expected)
    assert len(dataset.metainfo['classes']) == len(dataset.metainfo['palette']) == 37
    pipeline = 'train_dataloader.dataset.pipeline'
    scores = train_small(
        'sunrgbd_refinenet_r101.py', 'model.data_preprocessor.size=(48, 48)',
        f'{pipeline}.2.transforms.0.min_side=48', f'{pipeline}.2.transforms.0.crop_size=(48, 48)',
        f'{pipeline}.2.transforms.1.size=(48, 48)', 'model.decode_head.channels=16',
        'model.decode_head.in_channels=[8, 16, 32, 64]',
    )  # fmt: skip
    assert all(0 <= scores[name] < 50 for name in ('mIoU', 'rgb/mIoU', 'depth/mIoU'))


def depth_of(frame: int) -> Path:
    return Path('official/SUNRGBD') / FOLDERS[frame] / 'depth_bfx' / f'{frame:07d}.png'


def toolbox() -> Path:
    return Path('official/SUNRGBDtoolbox')


def labels_with(frame: int, value: np.ndarray) -> None:
    write_labels(toolbox(), [value if i == frame else label(i) for i in range(7)])


def no_meta_field() -> None:
    savemat(toolbox() / 'Metadata' / 'SUNRGBDMeta.mat', {'SUNRGBDMeta': np.zeros((1, 7))})


def elsewhere() -> list[str]:
    return ['/home/me/a.jpg', *(f'{DISK}{folder}/image/a.jpg' for folder in FOLDERS[1:])]


def damaged_zip() -> None:
    """Deflated data of the first picture is no longer what it was."""
    archive = Path('official/SUNRGBD.zip')
    zip_folder(Path('official/SUNRGBD'), archive)
    data = bytearray(archive.read_bytes())
    at = data.index(b'.jpg') + 40
    data[at : at + 200] = b'\xff' * 200
    archive.write_bytes(data)


Spoil = Callable[[], object]


@pytest.mark.parametrize(
    ('spoil', 'text'),
    [
        (lambda: write_splits(toolbox(), (0, 2, 3)), 'frame 000006, xtion/xtion_align_data/2014_11_'
         '07_01, in 0 splits, but each is in one'),
        (lambda: write_splits(toolbox(), (*TRAIN, 4)), 'frame 000005, kv1/b3dodata/img_0063, in 2'),
        (lambda: write_splits(toolbox(), (0, 1), (2, 3, 4, 5, 6)), 'has 2 frames to train, but the '
         'official split has 4'),
        (lambda: write_labels(toolbox(), [label(0)]), 'has 1 label maps, but SUNRGBDMeta.mat has '
         '7 frames'),
        (no_meta_field, 'SUNRGBDMeta has no rgbpath'),
        (lambda: write_meta(toolbox(), rgbpath=elsewhere()), 'frame 1 has rgbpath \'/home/me/a'
         '.jpg\''),
        (lambda: depth_of(3).unlink(), f'lacks 1 files, the first is {FOLDERS[3]}/depth_bfx/000000'
         '3.png'),
        (lambda: depth_of(2).write_bytes(depth_of(2).read_bytes()[:99]), 'depth_bfx/0000002.png '
         'cannot be read'),
        (lambda: save(depth_of(1), picture(53, 73)), '0000001.png is uint8 of shape (53, 73), but '
         'the official one is uint16 with 1 channels'),
        (lambda: save(depth_of(1), metres(1, True)), 'more than 16 m in most of its pixels'),
        (lambda: save(depth_of(4), np.full((9, 9), 8, np.uint16)), 'the pictures of frame 000005 '
         '(kv1/b3dodata/img_0063) differ in size (height, width)'),
        (lambda: labels_with(5, np.full(size_of(5), 38)), 'frame 6 has labels 38..38'),
        (lambda: labels_with(5, np.full(size_of(5), 1.5)), 'frame 6 has labels 1.5..1.5'),
        (lambda: labels_with(5, label(0)), 'frame 000006 (xtion/xtion_align_data/2014_11_07_01)'),
        (damaged_zip, f'SUNRGBD.zip: {FOLDERS[0]}/image/0000000.jpg cannot be read'),
        (lambda: shutil.rmtree('official/SUNRGBD'), 'has neither SUNRGBD.zip nor SUNRGBD/'),
        (lambda: shutil.rmtree(toolbox()), 'has neither SUNRGBDtoolbox.zip nor SUNRGBDtoolbox/'),
        (lambda: (toolbox() / 'Metadata' / 'SUNRGBDMeta.mat').unlink(), 'official/SUNRGBDtoolbox: '
         'Metadata/SUNRGBDMeta.mat cannot be read'),
        (lambda: (toolbox() / 'Metadata' / 'SUNRGBD2Dseg.mat').write_bytes(b'<html>'), 'SUNRGBD2D'
         'seg.mat cannot be read'),
    ],
)  # fmt: skip
def test_first_offender_is_named(
    desk: Path, capsys: pytest.CaptureFixture, spoil: Spoil, text: str
) -> None:
    spoil()
    assert call(TOOL, 'official', *COUNTS) == 1
    assert text in capsys.readouterr().err
    assert not (desk / 'data' / 'sunrgbd' / 'splits' / 'train.txt').exists()


def test_official_counts_are_the_default(desk: Path, capsys: pytest.CaptureFixture) -> None:
    assert call(TOOL, 'official') == 1
    assert 'the official split has 5285' in capsys.readouterr().err
    assert call(TOOL, 'official', '--expect-train', '4') == 1
    assert 'has 3 frames to test, but the official split has 5050' in capsys.readouterr().err


def test_no_zip(desk: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.rmtree('official/SUNRGBD')
    Path('official/SUNRGBD.zip').write_bytes(b'<html>not found</html>')
    assert call(TOOL, 'official', *COUNTS) == 1
    assert 'SUNRGBD.zip is damaged (File is not a zip file)' in capsys.readouterr().err


def test_interrupted_and_run_again_equals_one_run(
    desk: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # depth and mask of two frames, depth of the third
    interrupt_and_go_on(TOOL, COUNTS, '000001', 5, monkeypatch)
    shown = capsys.readouterr()
    assert 'run the same command again to continue' in shown.err
    assert '2 frames are finished already' in shown.out


def test_overwrites_when_told_so_alone(desk: Path, capsys: pytest.CaptureFixture) -> None:
    out = desk / 'data' / 'sunrgbd'
    (out / 'masks').mkdir(parents=True)
    (out / 'masks' / '000001.png').write_bytes(b'mine')
    assert call(TOOL, 'official', *COUNTS) == 1
    assert 'data/sunrgbd was made from another source or in another way (unknown' in (
        capsys.readouterr().err
    )
    assert (out / 'masks' / '000001.png').read_bytes() == b'mine'
    assert call(TOOL, 'official', *COUNTS, '--overwrite') == 0
    before = contents(out)
    assert call(TOOL, 'official', *COUNTS, '--depth', 'raw') == 1
    assert 'choose another --out, or --overwrite' in capsys.readouterr().err
    assert contents(out) == before
    assert call(TOOL, 'official', *COUNTS, '--depth', 'raw', '--overwrite') == 0
    after = contents(out)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {'source.json', *(f'depth/{i:06d}.png' for i in range(1, 8))}
