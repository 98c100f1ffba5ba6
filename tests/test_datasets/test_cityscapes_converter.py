"""Cityscapes with disparity, from archives of the official layout to an evaluation."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmcen.datasets import CityscapesRGBDDataset
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

TOOL = 'cityscapes'
SIZE = (48, 64)
FRAMES = {
    'aachen_000000_000019': 'train', 'aachen_000001_000019': 'train',
    'bochum_000000_000313': 'train', 'zurich_000121_000019': 'train',
    'frankfurt_000000_000294': 'val', 'munster_000173_000019': 'val',
    'berlin_000000_000019': 'test',
}  # fmt: skip
SUFFIXES = {'leftImg8bit': 'leftImg8bit', 'disparity': 'disparity', 'gtFine': 'gtFine_labelIds'}
COUNTS = (
    '--expect-train', '4', '--expect-val', '2', '--expect-size', '48', '64', '--workers', '1',
)  # fmt: skip
# numbers of the official label files, as the annotation's page lists the evaluated classes
LABELS = {
    'road': 7, 'sidewalk': 8, 'building': 11, 'wall': 12, 'fence': 13, 'pole': 17,
    'traffic light': 19, 'traffic sign': 20, 'vegetation': 21, 'terrain': 22, 'sky': 23,
    'person': 24, 'rider': 25, 'car': 26, 'truck': 27, 'bus': 28, 'train': 31, 'motorcycle': 32,
    'bicycle': 33,
}  # fmt: skip


def place(part: str, frame: str) -> Path:
    city = frame.partition('_')[0]
    return Path(part, FRAMES[frame], city, f'{frame}_{SUFFIXES[part]}.png')


def official(part: str, frame: str) -> Path:
    return 'official' / place(part, frame)


def colour(frame: str) -> np.ndarray:
    return picture(*SIZE, 3, seed=len(frame) + ord(frame[0]))


def disparity(frame: str) -> np.ndarray:
    """As stored: 0 is invalid, 1 is none, 32257 the largest of the real ones."""
    values = picture(*SIZE, seed=ord(frame[1]), top=32_258, dtype='uint16')
    values[:3, :2] = (0, 1), (2, 257), (32_257, 0)
    return values


def label(frame: str) -> np.ndarray:
    return picture(*SIZE, seed=ord(frame[2]), top=34)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the extracted archives in ``official``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('MMCEN_DATA', raising=False)
    write_archives(tmp_path / 'official')
    return tmp_path


def write_archives(folder: Path) -> None:
    """Extracted; beside the frames there is what nobody needs."""
    for frame in FRAMES:
        save(folder / place('leftImg8bit', frame), colour(frame))
        save(folder / place('disparity', frame), disparity(frame))
        save(folder / place('gtFine', frame), label(frame))
        coloured = str(place('gtFine', frame)).replace('labelIds', 'color')
        save(folder / coloured, colour(frame))


def test_every_pixel_arrives(desk: Path, capsys: pytest.CaptureFixture) -> None:
    """From the zips and from the folders alike; the test split, without labels, stays away."""
    assert call(TOOL, 'official', *COUNTS) == 0
    assert '6 frames (4 train, 2 val) in data/cityscapes_rgbd' in capsys.readouterr().out
    out = desk / 'data' / 'cityscapes_rgbd'
    classes = CityscapesRGBDDataset.METAINFO['classes']
    for frame, split in FRAMES.items():
        listed = frame in (out / 'splits' / 'train.txt').read_text().split()
        assert listed == (split == 'train')
        assert (out / 'masks' / f'{frame}.png').exists() == (split != 'test')
        if split == 'test':
            continue
        copied = (out / 'rgb' / f'{frame}.png').read_bytes()
        assert copied == official('leftImg8bit', frame).read_bytes()
        mask, numbers = stored(out / 'masks' / f'{frame}.png'), label(frame)
        for name, number in LABELS.items():
            assert np.array_equal(mask == classes.index(name), numbers == number)
        assert np.array_equal(mask == 255, ~np.isin(numbers, list(LABELS.values())))
    for part in SUFFIXES:
        zip_folder(desk / 'official' / part, desk / 'official' / f'{part}_trainvaltest.zip')
    assert call(TOOL, 'official', *COUNTS, '--out', 'zipped', '--workers', '2') == 0
    assert contents(desk / 'zipped') == contents(out)


def test_archive_to_two_steps_and_an_evaluation(desk: Path) -> None:
    assert call(TOOL, 'official', *COUNTS) == 0
    loading = [{'type': 'LoadModalities'}, {'type': 'LoadLabel'}]
    dataset = CityscapesRGBDDataset(split='val', pipeline=loading)
    sample = dataset[0]
    values = disparity('frankfurt_000000_000294').astype(np.float64)
    pixels = np.where(values > 0, (values - 1) / 256, 0)
    assert np.array_equal(sample['modalities']['depth'][..., 0], pixels)
    assert sample['modalities']['depth'].max() == 126
    assert np.array_equal(sample['modalities']['rgb'], colour('frankfurt_000000_000294')[..., ::-1])
    assert set(np.unique(sample['gt_seg_map'])) == {*range(19), 255}
    pipeline = 'train_dataloader.dataset.pipeline'
    scores = train_small(
        'cityscapes_pspnet_r101.py', 'model.data_preprocessor.size=(32, 48)',
        f'{pipeline}.2.transforms.0.min_side=32', f'{pipeline}.2.transforms.0.crop_size=(32, 48)',
        'model.decode_head.in_channels=64', 'model.decode_head.channels=16',
        'model.auxiliary_head.in_channels=32', 'model.auxiliary_head.channels=16',
    )  # fmt: skip
    assert all(0 <= scores[name] < 50 for name in ('mIoU', 'rgb/mIoU', 'depth/mIoU'))


FIRST, BOCHUM = 'aachen_000000_000019', 'bochum_000000_000313'


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


@pytest.mark.parametrize(
    ('spoil', 'text'),
    [
        (lambda: official('leftImg8bit', BOCHUM).unlink(), 'leftImg8bit has 3 frames to train, but '
         'the official split has 4'),
        (lambda: shutil.rmtree('official/leftImg8bit/val'), 'has 0 frames to val'),
        (lambda: official('disparity', BOCHUM).unlink(), 'official/disparity lacks 1 files, the '
         f'first is train/bochum/{BOCHUM}_disparity.png'),
        (lambda: official('gtFine', FIRST).unlink(), f'train/aachen/{FIRST}_gtFine_labelIds.png'),
        (lambda: truncate(official('leftImg8bit', FIRST)), f'leftImg8bit/train/aachen/{FIRST}_left'
         'Img8bit.png cannot be read'),
        (lambda: save(official('disparity', FIRST), label(FIRST)), f'{FIRST}_disparity.png is '
         'uint8 of shape (48, 64), but the official one is uint16'),
        (lambda: save(official('disparity', FIRST), disparity(FIRST) + 1000), f'frame {FIRST} has '
         'a disparity of 129.906 pixels, but the official ones are within 0..128'),
        (lambda: save(official('gtFine', BOCHUM), np.full(SIZE, 255, np.uint8)), f'frame {BOCHUM} '
         'has label 255, but they are within 0..33'),
        (lambda: save(official('gtFine', BOCHUM), label(BOCHUM)[1:]), f'pictures of frame {BOCHUM} '
         "differ in size (height, width), {'colour': (48, 64), 'disparity': (48, 64), 'label': ("),
        (lambda: shutil.rmtree('official/disparity'), 'has neither disparity_trainvaltest.zip'),
    ],
)  # fmt: skip
def test_first_offender_is_named(
    desk: Path, capsys: pytest.CaptureFixture, spoil: Callable[[], object], text: str
) -> None:
    spoil()
    assert call(TOOL, 'official', *COUNTS) == 1
    assert text in capsys.readouterr().err
    assert not (desk / 'data' / 'cityscapes_rgbd' / 'splits' / 'train.txt').exists()


def test_official_counts_and_size_are_the_default(
    desk: Path, capsys: pytest.CaptureFixture
) -> None:
    assert call(TOOL, 'official') == 1
    assert 'the official split has 2975' in capsys.readouterr().err
    assert call(TOOL, 'official', '--expect-train', '4') == 1
    assert 'has 2 frames to val, but the official split has 500' in capsys.readouterr().err
    assert call(TOOL, 'official', '--expect-train', '4', '--expect-val', '2') == 1
    assert "'label': (48, 64), 'official': (1024, 2048)}" in capsys.readouterr().err
    assert call(TOOL, 'official', '--workers', '0') == 2
    assert '--workers 0 is below 1' in capsys.readouterr().err


def test_interrupted_and_run_again_equals_one_run(
    desk: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # disparity and mask of a frame, disparity of the second
    interrupt_and_go_on(TOOL, COUNTS, FIRST, 3, monkeypatch)
    shown = capsys.readouterr()
    assert 'run the same command again to continue' in shown.err
    assert '1 frames are finished already' in shown.out


def test_refuses_the_folder_of_another_set(desk: Path, capsys: pytest.CaptureFixture) -> None:
    out = desk / 'data' / 'cityscapes_rgbd'
    save(out / 'masks' / '000001.png', label(FIRST))
    (out / 'source.json').write_text('{"set": "SUN RGB-D"}')
    assert call(TOOL, 'official', *COUNTS) == 1
    assert 'cityscapes_rgbd was made from another source' in capsys.readouterr().err
    assert len(list(out.rglob('*.png'))) == 1
    assert call(TOOL, 'official', *COUNTS, '--overwrite') == 0
