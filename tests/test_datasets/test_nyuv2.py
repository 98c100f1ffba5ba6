"""Data sets of named modalities, and NYUv2 with its config: small made sets, then the real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS
from scipy.io import loadmat

from mmcen.datasets import MultiModalSegDataset, NYUv2Dataset, data_place
from mmcen.datasets.nyuv2 import colour_map
from mmcen.models import CENDataPreprocessor

CONFIG = Path(__file__).parents[2] / 'configs' / '_base_' / 'datasets' / 'nyuv2.py'
LOADING = [{'type': 'LoadModalities'}, {'type': 'LoadLabel'}]
CLASSES = {'classes': ('floor', 'wall', 'chair')}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Three frames of 8x10 in the layout of NYUv2: colour as JPEG and PNG, 16-bit depth."""
    rng = np.random.default_rng(0)
    for folder in ('rgb', 'depth', 'masks', 'splits'):
        (tmp_path / folder).mkdir()
    for frame in (1, 2, 3):
        suffix = '.png' if frame == 2 else '.jpg'
        cv2.imwrite(f'{tmp_path}/rgb/00000{frame}{suffix}', rng.integers(0, 256, (8, 10, 3)))
        depth = rng.integers(700, 10000, (8, 10)).astype(np.uint16)
        cv2.imwrite(f'{tmp_path}/depth/00000{frame}.png', depth)
        cv2.imwrite(f'{tmp_path}/masks/00000{frame}.png', rng.integers(0, 4, (8, 10)))
    (tmp_path / 'splits' / 'train.txt').write_text('000003\n000001\n\n')
    (tmp_path / 'splits' / 'test.txt').write_text('000002\n')
    return tmp_path


def build(root: Path, **kwargs: object) -> NYUv2Dataset:
    return NYUv2Dataset(data_root=str(root), **{'pipeline': LOADING, **kwargs})


# --- any data set of named modalities


def test_a_sample_starts_with_paths_and_facts(made: Path) -> None:
    dataset = build(made, pipeline=[])
    assert len(dataset) == 2
    info = dataset[0]
    assert info['modality_paths'] == {
        'rgb': f'{made}/rgb/000003.jpg',
        'depth': f'{made}/depth/000003.png',
    }
    assert info['img_path'] == info['modality_paths']['rgb']
    assert info['seg_map_path'] == f'{made}/masks/000003.png'
    assert info['modality_info']['depth'].metres('uint16') == 0.001
    assert info['known_modalities'] == ['rgb', 'depth']
    assert (info['num_classes'], info['reduce_zero_label'], info['seg_fields']) == (40, True, [])
    assert build(made, split='test', pipeline=[])[0]['img_path'].endswith('000002.png')


def test_choice_and_order_of_modalities(made: Path) -> None:
    swapped = build(made, modalities=['depth', 'rgb'])[0]
    assert list(swapped['modalities']) == ['depth', 'rgb']
    assert swapped['img_path'].endswith('depth/000003.png')
    alone = build(made, modalities=['depth'])[0]
    assert list(alone['modalities']) == ['depth']
    assert alone['known_modalities'] == ['rgb', 'depth']
    stated = build(made, modalities=[dict(name='depth', unit='cm', suffix='.png')])[0]
    assert stated['modality_info']['depth'].suffix == ('.png',)
    assert stated['modalities']['depth'] == pytest.approx(10 * alone['modalities']['depth'])


def test_four_modalities_declared_by_the_config(made: Path) -> None:
    (made / 'more' / 'room').mkdir(parents=True)
    for frame in (1, 2, 3):
        np.save(made / 'more' / 'room' / f'{frame}.npy', np.ones((8, 10, 2), np.float32))
        for folder, source in (('rgb', 'rgb'), ('depth', 'depth'), ('masks', 'masks')):
            found = next((made / source).glob(f'00000{frame}.*'))
            target = made / folder / 'room' / f'{frame}{found.suffix}'
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(found.read_bytes())
    depth = {'dir': 'depth', 'unit': 0.002}
    dataset = DATASETS.build(
        {
            'type': 'MultiModalSegDataset',
            'data_root': str(made),
            'modalities': [
                {'name': 'flow', 'dir': 'more', 'suffix': '.npy', 'kind': 'raw'},
                {'name': 'rgb', 'suffix': ('.jpg', '.png')},
                {'name': 'far', **depth},
                {'name': 'near', **depth},
            ],
            'labels': {'dir': 'masks', 'suffix': '.png'},
            'metainfo': {'classes': ('a', 'b', 'c', 'd')},
            'pipeline': LOADING,
        }
    )
    assert len(dataset) == 3  # without a split file every file of the first modality is a frame
    sample = dataset[0]
    assert list(sample['modalities']) == ['flow', 'rgb', 'far', 'near']
    assert sample['img_path'].endswith('more/room/1.npy')
    stored = cv2.imread(f'{made}/depth/000001.png', cv2.IMREAD_UNCHANGED)
    assert sample['modalities']['far'][..., 0] == pytest.approx(stored * 0.002)
    label = cv2.imread(f'{made}/masks/000001.png', cv2.IMREAD_UNCHANGED)
    assert np.array_equal(sample['gt_seg_map'], label)


def test_without_labels(made: Path) -> None:
    dataset = build(made, labels=None)
    assert 'seg_map_path' not in dataset.get_data_info(0)
    with pytest.raises(ValueError, match='has no label map'):
        dataset[0]


def test_fewer_classes(made: Path) -> None:
    names = NYUv2Dataset.METAINFO['classes']
    dataset = build(made, metainfo={'classes': ('cabinet', 'wall')})
    assert dataset.num_classes == 40
    assert dataset.metainfo['palette'] == [colour_map(41)[3], colour_map(41)[1]]
    stored = cv2.imread(f'{made}/masks/000003.png', cv2.IMREAD_UNCHANGED)
    expected = np.full(stored.shape, 255)
    expected[stored == 1 + names.index('wall')] = 1
    expected[stored == 1 + names.index('cabinet')] = 0
    assert np.array_equal(dataset[0]['gt_seg_map'], expected)


def test_parts_of_the_training_frames(made: Path) -> None:
    for frame in range(4, 13):
        for folder, source in (('rgb', '000003.jpg'), ('depth', '000003.png')):
            (made / folder / f'{frame:06}{source[6:]}').symlink_to(made / folder / source)
        (made / 'masks' / f'{frame:06}.png').symlink_to(made / 'masks' / '000003.png')
    # six runs without a gap, of which the first of five is held
    (made / 'splits' / 'train.txt').write_text(
        '\n'.join(f'{n:06}' for n in (1, 3, 4, 6, 8, 10, 12))
    )
    names = {
        part: [Path(info['img_path']).stem for info in build(made, split=part).load_data_list()]
        for part in ('train_fit', 'train_hold')
    }
    assert names['train_hold'] == ['000001', '000012']
    assert names['train_fit'] == ['000003', '000004', '000006', '000008', '000010']


def test_parts_need_numbers(made: Path) -> None:
    (made / 'splits' / 'train.txt').write_text('kitchen_1\n')
    with pytest.raises(ValueError, match="frame 'kitchen_1' is not a number, so its scene"):
        build(made, split='train_fit')


def remove(*names: str) -> Callable[[Path], None]:
    return lambda root: [(root / name).unlink() for name in names] and None


def split_of(text: str) -> Callable[[Path], None]:
    return lambda root: (root / 'splits' / 'train.txt').write_text(text) and None


@pytest.mark.parametrize(
    ('spoil', 'error', 'text'),
    [
        (remove('depth/000001.png'), FileNotFoundError, r"modality 'depth': 1 of 2 files are "
         r'missing, the first is .*depth/000001\.png\|\.npy\|\.tiff: make the data set'),
        (remove('rgb/000001.jpg', 'rgb/000003.jpg'), FileNotFoundError, "'rgb': 2 of 2 files"),
        (remove('masks/000003.png'), FileNotFoundError, r'labels: 1 of 2 .*masks/000003\.png'),
        (remove('splits/train.txt'), FileNotFoundError, r'no split file .*train\.txt: make the'),
        (split_of('000001\n000001\n'), ValueError, "train.txt lists frame '000001' twice"),
        (split_of('\n'), ValueError, 'train.txt gives no frame'),
    ],
)  # fmt: skip
def test_missing_files_are_told_at_once(
    made: Path, spoil: Callable[[Path], None], error: type, text: str
) -> None:
    spoil(made)
    with pytest.raises(error, match=text):
        build(made)


@pytest.mark.parametrize(
    ('modalities', 'error', 'text'),
    [
        (['rgb', 'detph'], ValueError, r"'detph' is unknown \(did you mean 'depth'\?\): choose"),
        ([{'name': 'heat', 'kind': 'raw'}], ValueError, "dict that says where .*name='heat', dir"),
        (['rgb', 'rgb'], ValueError, "'rgb' is listed twice"),
        ([], ValueError, 'there is no modality: give'),
        ('rgb', TypeError, "modalities is a str, 'rgb': give a list"),
        ({'rgb': {'dir': 'rgb'}}, TypeError, 'modalities is a dict, .*: give a list, whose order'),
        ([{'name': 'rgb', 'folder': 'rgb'}], ValueError, "'rgb' has an unknown key 'folder'"),
        ([{'name': 'rgb', 'dir': 'colours'}], FileNotFoundError, 'there is no folder .*colours'),
    ],
)
def test_bad_choice_of_modalities(made: Path, modalities: object, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        build(made, modalities=modalities)


def test_generic_class_declares_nothing() -> None:
    with pytest.raises(ValueError, match='there is no modality: give'):
        MultiModalSegDataset(metainfo=CLASSES, lazy_init=True)


# --- where it is


def test_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('MMCEN_DATA', raising=False)
    assert data_place('nyuv2') == 'data/nyuv2'
    monkeypatch.setenv('MMCEN_DATA', str(tmp_path))
    assert data_place('nyuv2') == f'{tmp_path}/nyuv2'  # where it should be
    (tmp_path / 'splits').mkdir()
    assert data_place('nyuv2') == str(tmp_path)
    (tmp_path / 'nyuv2').mkdir()
    assert data_place('nyuv2') == f'{tmp_path}/nyuv2'


def test_absent_set_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('MMCEN_DATA', str(tmp_path))
    dataset = NYUv2Dataset(lazy_init=True)  # classes and palette need no data
    assert len(dataset.metainfo['classes']) == 40
    with pytest.raises(FileNotFoundError, match=r'nyuv2/splits/train\.txt') as raised:
        dataset.full_init()
    for word in ('mmcen convert-data nyuv2', 'MMCEN_DATA'):
        assert word in str(raised.value)


def test_unknown_split() -> None:
    with pytest.raises(
        ValueError, match=r"no split 'val': choose one of \['train', 'test', 'train_"
    ):
        NYUv2Dataset(split='val')


def test_palette_is_that_of_pascal_voc() -> None:
    palette = colour_map(256)
    # the last entries are those of VOC's potted plant to tv monitor
    assert palette[16:21] == [[0, 64, 0], [128, 64, 0], [0, 192, 0], [128, 192, 0], [0, 64, 128]]
    assert len({tuple(colour) for colour in palette}) == 256


# --- the real data


def test_real_counts_and_names(data_root: Path) -> None:
    counts = [len(NYUv2Dataset(split=s, data_root=str(data_root))) for s in ('train', 'test')]
    assert counts == [795, 654]
    parts = {
        part: NYUv2Dataset(split=part, data_root=str(data_root)).load_data_list()
        for part in ('train_fit', 'train_hold')
    }
    frames = {part: {int(Path(i['img_path']).stem) for i in infos} for part, infos in parts.items()}
    assert [len(numbers) for numbers in frames.values()] == [646, 149]
    # no two neighbours, which may be of one scene, are apart
    assert not frames['train_fit'] & {n + d for n in frames['train_hold'] for d in (-1, 0, 1)}
    labels = [cv2.imread(info['seg_map_path'], -1) for info in parts['train_hold']]
    assert {*range(1, 41)} <= set(np.unique(labels).tolist())
    mapping = data_root / 'meta' / 'classMapping40.mat'
    if mapping.exists():  # official file, not part of the converter's output
        official = [str(name[0]) for name in loadmat(mapping)['className'].ravel()]
        assert list(NYUv2Dataset.METAINFO['classes']) == official


def test_real_values(data_root: Path) -> None:
    classes = set()
    for split in ('train', 'test'):
        dataset = NYUv2Dataset(split=split, data_root=str(data_root), pipeline=LOADING)
        for index in range(0, len(dataset), 40):
            sample = dataset[index]
            rgb, depth = sample['modalities'].values()
            assert rgb.shape == (480, 640, 3)
            assert depth.shape == (480, 640, 1)
            assert 0.7 <= depth.min() < depth.max() <= 10.0 + 1e-5
            stored = cv2.imread(sample['seg_map_path'], cv2.IMREAD_UNCHANGED)
            assert np.array_equal(sample['gt_seg_map'], np.where(stored == 0, 255, stored - 1))
            classes |= set(np.unique(sample['gt_seg_map']).tolist())
    assert classes <= {*range(40), 255}
    assert len(classes) > 30


def test_real_train_batch(data_root: Path) -> None:
    cfg = Config.fromfile(CONFIG)
    dataset = DATASETS.build(cfg.train_dataloader.dataset | {'data_root': str(data_root)})
    samples = [dataset[index] for index in range(6)]
    for sample in samples:
        assert {n: tuple(t.shape) for n, t in sample['inputs'].items()} == {
            'rgb': (3, 500, 500),
            'depth': (1, 500, 500),
        }
        label = sample['data_samples'].gt_sem_seg.data
        assert label.shape == (1, 500, 500)
        depth = sample['inputs']['depth']
        assert depth.max() <= 10.0 + 1e-5
        # nearest keeps what was measured; 0 is padding, and void there
        assert ((depth >= 0.7) | ((depth == 0) & (label == 255))).all()
    preprocessor = CENDataPreprocessor(cfg.modalities)
    batch = {
        'inputs': [sample['inputs'] for sample in samples],
        'data_samples': [sample['data_samples'] for sample in samples],
    }
    out = preprocessor(batch, training=True)['inputs']
    assert out.shape == (6, 6, 500, 500)
    assert out[:, :3].mean().abs() < 1.5
    assert out[:, :3].std() < 2
    assert out[:, 3:].max() <= 2.0 + 1e-5


def test_real_test_sample(data_root: Path) -> None:
    cfg = Config.fromfile(CONFIG)
    dataset = DATASETS.build(cfg.test_dataloader.dataset | {'data_root': str(data_root)})
    sample = dataset[0]
    assert sample['inputs']['rgb'].shape == (3, 480, 640)
    assert sample['data_samples'].gt_sem_seg.data.shape == (1, 480, 640)
    assert Path(sample['data_samples'].modality_paths['depth']).exists()


def test_real_tta_sample(data_root: Path) -> None:
    cfg = Config.fromfile(CONFIG)
    settings = {'data_root': str(data_root), 'pipeline': cfg.tta_pipeline, 'split': 'test'}
    sample = NYUv2Dataset(**settings)[0]
    shapes = [tuple(one['depth'].shape[1:]) for one in sample['inputs']]
    assert shapes == [(360, 480)] * 2 + [(480, 640)] * 2 + [(600, 800)] * 2
    assert [one.flip for one in sample['data_samples']] == [False, True] * 3
    plain, flipped = sample['inputs'][2:4]
    for name in ('rgb', 'depth'):
        assert plain[name].equal(flipped[name].flip(-1))
    labels = [one.gt_sem_seg.data for one in sample['data_samples']]
    assert all(label.equal(labels[0]) for label in labels)
    assert labels[0].shape == (1, 480, 640)
