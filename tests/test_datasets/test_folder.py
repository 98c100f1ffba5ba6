"""RGBDFolderDataset: people's own folders, what is wrong with them, and a training on them."""

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS

from tests.training import SMALL, two_steps

FRAMES = ['000', '001', '002', '003', 'room/004', 'room/005']
LOADING = [dict(type='LoadModalities'), dict(type='LoadLabel', optional=True)]
MODALITIES = [
    dict(name='rgb', dir='rgb', suffix='.jpg', mean=[124.0] * 3, std=[58.0] * 3),
    dict(name='depth', unit='mm', mean=[0.0], std=[5.0]),
    dict(name='thermal', dir='heat', suffix='_t.npy', kind='raw', mean=[20.0], std=[5.0]),
]
LABELS = dict(dir='labels', suffix='.png')


@pytest.fixture
def stored(tmp_path):
    """Arrays as they are written: by folder, by frame."""
    rng = np.random.default_rng(0)
    arrays = {}
    for frame in FRAMES:
        arrays[frame] = dict(
            rgb=np.full((48, 64, 3), rng.integers(256, size=3), np.uint8),
            depth=rng.integers(500, 9000, (48, 64), dtype=np.uint16),
            heat=rng.normal(20, 5, (48, 64, 1)).astype(np.float32),
            labels=rng.integers(0, 3, (48, 64), dtype=np.uint8),
        )
        for folder, array in arrays[frame].items():
            path = tmp_path / folder / frame
            path.parent.mkdir(parents=True, exist_ok=True)
            if folder == 'heat':
                np.save(f'{path}_t.npy', array)
            else:
                suffix = '.jpg' if folder == 'rgb' else '.png'
                cv2.imwrite(f'{path}{suffix}', array[..., ::-1] if array.ndim == 3 else array)
    (tmp_path / 'train.txt').write_text('\n'.join(FRAMES[:4]))
    (tmp_path / 'val.txt').write_text('\r\n'.join(FRAMES[4:]))
    return arrays


def build(root, **kwargs):
    cfg = dict(type='RGBDFolderDataset', data_root=str(root), modalities=MODALITIES)
    return DATASETS.build(cfg | dict(labels=LABELS, pipeline=LOADING) | kwargs)


@pytest.mark.parametrize('ann_file, frames', [('', FRAMES), ('val.txt', FRAMES[4:])])
def test_every_value_arrives(tmp_path, stored, ann_file, frames):
    dataset = build(tmp_path, ann_file=ann_file)
    assert len(dataset) == len(frames)
    for frame, sample in zip(frames, dataset, strict=True):
        made = sample['modalities']
        assert list(made) == ['rgb', 'depth', 'thermal']
        np.testing.assert_allclose(made['rgb'], stored[frame]['rgb'], atol=3)  # JPEG of one colour
        np.testing.assert_allclose(made['depth'][..., 0], stored[frame]['depth'] / 1000, rtol=1e-6)
        np.testing.assert_array_equal(made['thermal'], stored[frame]['heat'])
        np.testing.assert_array_equal(sample['gt_seg_map'], stored[frame]['labels'])


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_lists_in_unicode(tmp_path, stored, encoding):
    frame = '\u00fcber/\u4e16'
    for folder, suffix in (('rgb', '.jpg'), ('depth', '.png'), ('heat', '_t.npy')):
        (tmp_path / folder / '\u00fcber').mkdir()
        (tmp_path / folder / f'000{suffix}').rename(tmp_path / folder / f'{frame}{suffix}')
    (tmp_path / 'list.txt').write_bytes(f'{frame}\n\n 001 \r\n'.encode(encoding))
    dataset = build(tmp_path, ann_file='list.txt', labels=None)
    assert [dataset[i]['modalities']['depth'][0, 0] * 1000 for i in range(2)] == pytest.approx(
        [stored[name]['depth'][0, 0] for name in ('000', '001')]
    )


@pytest.mark.parametrize('encoding', ['latin-1', 'utf-16-le', 'utf-32'])
def test_lists_in_other_encodings(tmp_path, stored, encoding):
    (tmp_path / 'list.txt').write_bytes('\u00fcber\n'.encode(encoding))
    with pytest.raises(
        ValueError, match=r'list\.txt is no list in UTF-8, or UTF-16 .*: save it as'
    ):
        build(tmp_path, ann_file='list.txt')


def test_labels_are_optional(tmp_path, stored):
    assert 'gt_seg_map' not in build(tmp_path, labels=None)[0]


def remove(name):
    return lambda root: (root / name).unlink()


def add(name, source):
    return lambda root: (root / name).write_bytes((root / source).read_bytes())


def rename_all(root):
    for path in (root / 'depth').rglob('*.png'):
        path.rename(path.with_name(f'depth_{path.name}'))


def upper(root):
    for path in (root / 'rgb').rglob('*.jpg'):
        path.rename(path.with_suffix('.JPG'))


@pytest.mark.parametrize(
    'spoil, error, text',
    [
        (remove('heat/001_t.npy'), FileNotFoundError, r"'thermal': 1 of 6 files are missing, the "
         r'first is .*heat/001_t\.npy: the file of a frame is data_root/dir/FRAME\+suffix'),
        (remove('rgb/002.jpg'), ValueError, r"modality 'depth': 1 files belong to no frame of "
         r"'rgb', the first is .*depth/002\.png: remove them, add what is missing, or list"),
        (add('labels/009.png', 'labels/000.png'), ValueError, r'labels: 1 .*labels/009\.png'),
        (rename_all, FileNotFoundError, r"'depth': 6 of 6 .*/000\.png \(there is depth_000\.png\)"),
        (upper, ValueError, r'rgb/\*\.jpg \(there is 000\.JPG\) gives no frame: the file of'),
    ],
)  # fmt: skip
def test_the_first_offender_is_named(tmp_path, stored, spoil, error, text):
    spoil(tmp_path)
    with pytest.raises(error, match=text):
        build(tmp_path)


def test_a_list_makes_other_files_none_of_its_business(tmp_path, stored):
    for folder in ('rgb', 'labels'):
        next((tmp_path / folder).glob('000.*')).unlink()
    assert len(build(tmp_path, ann_file='val.txt')) == 2
    with pytest.raises(FileNotFoundError, match=r"'rgb': 1 of 4 .*rgb/000\.jpg"):
        build(tmp_path, ann_file='train.txt')


def test_other_files_beside_them(tmp_path, stored):
    (tmp_path / 'depth' / 'notes.txt').write_text('')
    (tmp_path / 'depth' / '._000.png').write_text('')  # as some systems leave behind
    assert len(build(tmp_path)) == 6


def test_an_empty_folder(tmp_path):
    (tmp_path / 'rgb').mkdir()
    with pytest.raises(ValueError, match=r'\(the folder is empty\) gives no frame'):
        build(tmp_path)


def test_two_steps_on_two_and_on_three_modalities(tmp_path, stored):
    """The config as it is shipped, and with another entry in its list."""
    common = SMALL | {
        'val_dataloader.batch_size': 2,
        'train_dataloader.dataset.pipeline.2.transforms.0.min_side': 48,
        'train_dataloader.dataset.pipeline.2.transforms.0.crop_size': (48, 64),
    }
    for part in ('train', 'val', 'test'):
        of_part = f'{part}_dataloader.dataset'
        listed = 'train.txt' if part == 'train' else 'val.txt'
        common |= {f'{of_part}.data_root': str(tmp_path), f'{of_part}.ann_file': listed}
    metrics, _ = two_steps('folder_refinenet_r50.py', tmp_path / 'two', common)
    assert {'mIoU', 'rgb/mIoU', 'depth/mIoU'} <= set(metrics)
    thermal = {f'{part}_dataloader.dataset.modalities': MODALITIES for part in ('train', 'val')}
    thermal['model.data_preprocessor.modalities'] = MODALITIES
    metrics, runner = two_steps('folder_refinenet_r50.py', tmp_path / 'three', common | thermal)
    assert 0 < metrics['mIoU'] <= 100
    assert 'thermal/mIoU' in metrics
    assert list(runner.model.streams) == ['rgb', 'depth', 'thermal']
