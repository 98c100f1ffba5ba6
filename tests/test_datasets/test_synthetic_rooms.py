"""The SyntheticRooms data set: contract, determinism, splits, sensor, errors."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS
from mmseg.evaluation import IoUMetric
from torch.utils.data import DataLoader

from mmcen.datasets import SyntheticRooms
from mmcen.datasets.rooms.renderer import intrinsics
from mmcen.datasets.rooms.sampler import sample_scene
from mmcen.datasets.rooms.scene import CLASSES
from mmcen.datasets.rooms.sensor import Sensor
from mmcen.datasets.rooms.shot import DOMAINS, Shot

# not serialized: that runs the garbage collector, which is slow in a large process
SMALL = {'size': (24, 32), 'length': 6, 'serialize_data': False}
FORMS = {
    'rgb': (3, np.uint8),
    'depth_euclidean': (1, np.float32),
    'depth_zbuffer': (1, np.float32),
    'normal': (3, np.float32),
    'reshading': (1, np.float32),
    'edge_texture': (1, np.float32),
    'edge_occlusion': (1, np.float32),
    'principal_curvature': (2, np.float32),
    'segment_semantic': (1, np.uint8),
}


def digest(results: dict) -> str:
    """One hash over all arrays of a sample."""
    arrays = [*results['modalities'].values(), results['gt_seg_map']]
    return hashlib.sha256(b''.join(array.tobytes() for array in arrays)).hexdigest()


def to_tensors(results: dict) -> dict:
    """A pipeline that default collation understands."""
    return {
        'rgb': torch.from_numpy(results['modalities']['rgb']),
        'labels': torch.from_numpy(results['gt_seg_map']),
        'path': results['img_path'],
    }


def test_sample_follows_the_contract() -> None:
    dataset = DATASETS.build(
        dict(type='SyntheticRooms', split='val', modalities=['depth', *FORMS], **SMALL)
    )
    assert len(dataset) == 6
    results = dataset[3]
    assert list(results['modalities']) == ['depth', *FORMS]
    for name, (channels, dtype) in FORMS.items():
        array = results['modalities'][name]
        assert (array.shape, array.dtype) == ((24, 32, channels), dtype), name
        assert np.isfinite(array).all(), name
    modalities = results['modalities']
    np.testing.assert_array_equal(modalities['depth'], modalities['depth_zbuffer'])
    np.testing.assert_array_equal(modalities['segment_semantic'][..., 0], results['gt_seg_map'])
    for name in ('reshading', 'edge_texture', 'edge_occlusion'):
        assert 0 <= modalities[name].min() <= modalities[name].max() <= 1, name
    np.testing.assert_allclose(np.linalg.norm(modalities['normal'], axis=-1), 1, atol=1e-3)
    assert results['gt_seg_map'].shape == (24, 32)
    assert results['gt_seg_map'].dtype == np.uint8
    assert results['img_path'] == 'synthetic_rooms/val/000003'
    assert results['img_shape'] == results['ori_shape'] == (24, 32)
    assert results['seg_fields'] == ['gt_seg_map']
    assert results['reduce_zero_label'] is False
    assert results['sample_idx'] == 3


def test_euclidean_and_z_depth_are_of_one_sensor() -> None:
    names = ('depth_euclidean', 'depth_zbuffer')
    for item in (SyntheticRooms(names, **SMALL)[k]['modalities'] for k in range(3)):
        far, z = (item[name][..., 0].astype(np.float64) for name in names)
        matrix = intrinsics(24, 32).astype(np.float64)
        x = (np.arange(32) - matrix[0, 2]) / matrix[0, 0]
        y = (np.arange(24)[:, None] - matrix[1, 2]) / matrix[1, 1]
        np.testing.assert_allclose(far, z * np.sqrt(1 + x * x + y * y), atol=1e-4)
        np.testing.assert_array_equal(far == 0, z == 0)


def test_same_scene_in_another_process() -> None:
    code = (
        'from tests.test_datasets.test_synthetic_rooms import *\n'
        "print(digest(SyntheticRooms(['rgb', 'depth', 'normal'], **SMALL)[2]))"
    )
    run = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True, timeout=900
    )
    here = digest(SyntheticRooms(['rgb', 'depth', 'normal'], **SMALL)[2])
    assert run.stdout.split()[-1] == here


def test_same_bits_wherever_the_arrays_lie_in_memory() -> None:
    """numpy's vectorised functions may round by alignment and overlap: none of them is used."""
    rng = np.random.default_rng(0)
    digests = set()
    for _ in range(25):
        held = [np.empty(rng.integers(1, 99999), np.uint8) for _ in range(9)]
        shot = Shot((0, 2), (96, 128), None)
        arrays = [shot.frame.colour, shot.frame.depth, *(make(shot) for make in DOMAINS.values())]
        digests.add(hashlib.sha256(b''.join(a.tobytes() for a in arrays)).hexdigest())
        del held
    assert len(digests) == 1


def test_scenes_stay_the_same() -> None:
    """Figures measured on the rooms stay comparable: same bits on numpy 1 and 2, and later on.

    A deliberate change of the scenes changes the digest, and belongs into the CHANGELOG.
    """
    frames = [Shot((0, number), (96, 128), None).frame for number in range(4)]
    arrays = [array for f in frames for array in (f.colour, f.depth, f.labels)]
    digest = hashlib.sha256(b''.join(array.tobytes() for array in arrays)).hexdigest()
    assert digest.startswith('4e5a85c38afee369')


def test_workers_give_what_the_main_process_gives() -> None:
    dataset = SyntheticRooms(['rgb'], pipeline=[to_tensors], lazy_init=True, **SMALL)
    alone = [dataset[k] for k in range(6)]
    batches = list(DataLoader(dataset, batch_size=2, num_workers=2))
    torch.testing.assert_close(
        torch.cat([batch['rgb'] for batch in batches]), torch.stack([item['rgb'] for item in alone])
    )
    assert [path for batch in batches for path in batch['path']] == [i['path'] for i in alone]


@pytest.mark.parametrize('options', [{}, {'serialize_data': True}, {'lazy_init': True}])
def test_indices_choose_scenes(options: dict) -> None:
    whole = SyntheticRooms(**SMALL)
    part = SyntheticRooms(indices=[4, 1], **{**SMALL, **options})
    assert len(part.get_subset([0])) == 1
    assert [item['img_path'][-1] for item in part] == ['4', '1']
    assert digest(part[0]) == digest(whole[4])


def test_a_sample_does_not_depend_on_what_else_is_asked_for() -> None:
    alone, together = (
        SyntheticRooms(names, **SMALL)[1]['modalities']['rgb']
        for names in (['rgb'], [*reversed(FORMS)])
    )
    np.testing.assert_array_equal(alone, together)


def test_splits_and_seeds_share_no_scene() -> None:
    scenes = [
        {
            entry['scene']
            for entry in SyntheticRooms(split=split, length=n, lazy_init=True).load_data_list()
        }
        for split, n in (('train', 500), ('val', 1000), ('test', 7))
    ]
    assert sum(map(len, scenes)) == 1507 == len(set.union(*scenes))
    digests = {
        digest(item)
        for split in ('train', 'val')
        for seed in (0, 1)
        for item in SyntheticRooms(split=split, seed=seed, **SMALL)
    }
    assert len(digests) == 24


def test_cache_keeps_frames_from_harm_and_to_its_limit() -> None:
    dataset = SyntheticRooms(**SMALL)
    first = digest(dataset[0])
    spoiled = dataset[0]
    spoiled['modalities']['rgb'][:] = 0
    spoiled['gt_seg_map'][:] = 255
    assert digest(dataset[0]) == first
    frame_mb = 24 * 32 * 8 / 2**20  # 3 bytes of colour, 4 of depth, 1 of label
    limited = SyntheticRooms(cache_mb=2.5 * frame_mb, **SMALL)
    assert [digest(item) for item in limited] == [digest(item) for item in dataset]
    assert len(limited._cache) == 2
    assert len(dataset._cache) == 6


def test_classes_can_be_a_subset() -> None:
    chosen = {'classes': ('floor', 'wall', 'ball')}
    dataset = SyntheticRooms(['rgb', 'segment_semantic'], metainfo=chosen, **SMALL)
    whole = SyntheticRooms(**SMALL)
    assert dataset.metainfo['palette'] == [whole.metainfo['palette'][k] for k in (1, 0, 4)]
    for item, full in zip(dataset, whole, strict=True):
        expected = np.full((24, 32), 255)
        for new, name in enumerate(chosen['classes']):
            expected[full['gt_seg_map'] == CLASSES.index(name)] = new
        np.testing.assert_array_equal(item['gt_seg_map'], expected)
        np.testing.assert_array_equal(item['modalities']['segment_semantic'][..., 0], expected)


def test_mmseg_metric_takes_its_meta() -> None:
    dataset = SyntheticRooms(size=(48, 64), length=12)
    metric = IoUMetric(iou_metrics=['mIoU'])
    metric.dataset_meta = dataset.metainfo
    assert len(dataset.metainfo['palette']) == len(CLASSES) == 10
    for item in dataset:
        label = torch.from_numpy(item['gt_seg_map']).long()[None]
        sample = {'pred_sem_seg': {'data': label}, 'gt_sem_seg': {'data': label}}
        metric.process({}, [sample])
    # 100 for every class: perfect predictions, and each class occurs
    assert metric.evaluate(len(dataset))['mIoU'] == 100


def test_sensor_noise_has_the_stated_size() -> None:
    rng = np.random.default_rng(0)
    depth = np.full((200, 300), 3.0, np.float32)
    deviation = 0.0012 + 0.0019 * 2.6**2
    noisy = Sensor(holes=0.1).depth(depth, rng)
    assert (noisy == 0).mean() == pytest.approx(0.1, abs=0.01)
    assert noisy[noisy > 0].std() == pytest.approx(deviation, rel=0.02)
    assert Sensor(depth_noise=2, holes=0).depth(depth, rng).std() == pytest.approx(
        2 * deviation, rel=0.02
    )
    depth[:, 150:] = 4
    torn = Sensor(holes=0, torn_edges=0.5).depth(depth, rng) == 0
    assert torn[:, 149:151].mean() == pytest.approx(0.5, abs=0.1)
    assert torn.sum() == torn[:, 149:151].sum()
    grey = np.full((200, 300, 3), 0.5, np.float32)
    seen = Sensor(colour_noise=0.05).colour(grey, rng)
    assert seen.std(axis=(0, 1)) == pytest.approx([0.05] * 3, rel=0.05)
    means = [Sensor().colour(grey[:9, :9], rng).mean() for _ in range(50)]
    assert 0.5 * 0.75 < min(means) < 0.45 < 0.55 < max(means) < 0.5 * 1.27


def test_perfect_sensor_and_settings() -> None:
    shot = Shot((0, 0), (24, 32), None)
    perfect = SyntheticRooms(sensor=False, **SMALL)[0]['modalities']
    np.testing.assert_array_equal(perfect['depth'][..., 0], shot.frame.depth)
    np.testing.assert_allclose(perfect['rgb'] / 255, shot.frame.colour, atol=0.5 / 255 + 1e-6)
    off = {
        'colour_noise': 0,
        'exposure': 0,
        'tint': 0,
        'depth_noise': 0,
        'holes': 0,
        'torn_edges': 0,
    }
    silent = SyntheticRooms(sensor=off, **SMALL)[0]
    assert digest(silent) == digest(SyntheticRooms(sensor=False, **SMALL)[0])
    default = digest(SyntheticRooms(**SMALL)[0])
    assert default == digest(SyntheticRooms(sensor={}, **SMALL)[0])
    assert default != digest(silent)


def test_scenes_hold_every_kind_of_thing() -> None:
    shares = np.zeros(len(CLASSES))
    for number in range(40):
        labels = DOMAINS['segment_semantic'](Shot((0, number), (24, 32), None))
        shares += np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size / 40
    assert shares.min() > 0.015
    assert shares[0] < 0.6
    assert sample_scene(np.random.default_rng(0)).items


def test_takes_the_list_of_a_set_of_files():
    """Keys about files have no effect; the others arrive in the sample."""
    listed = [
        dict(name='rgb', suffix='.jpg', interpolation='bicubic'),
        dict(name='depth', dir='d', unit='mm', mean=[2.8], std=[1.6]),
    ]
    sample = SyntheticRooms(listed, size=(8, 8), length=1)[0]
    rgb, depth = sample['modality_info'].values()
    assert (rgb.interpolation, depth.interpolation, depth.mean) == ('bicubic', 'nearest', (2.8,))
    assert sample['modalities']['depth'].max() < 20  # metres


@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        (
            {'modalities': ['rgb', 'sonar']},
            ValueError,
            r"'sonar' is unknown: choose one of \['rgb'",
        ),
        (
            {'modalities': [{'name': 'sonar', 'dir': 's'}]},
            ValueError,
            r"'sonar' is unknown: choose",
        ),
        ({'modalities': []}, ValueError, 'there is no modality'),
        ({'modalities': ['rgb', 'rgb']}, ValueError, "'rgb' is listed twice"),
        ({'modalities': 'rgb'}, TypeError, "modalities is a str, 'rgb'"),
        ({'split': 'trian'}, ValueError, "one of train, val, test, got 'trian'"),
        ({'length': 0}, ValueError, 'must be positive'),
        ({'size': (0, 8)}, ValueError, r'must be positive, got \(0, 8\)'),
        ({'sensor': {'holes': 1.5}}, ValueError, r'sensor holes must be in \[0, 1\], got 1.5'),
        ({'sensor': {'colour_noise': -1}}, ValueError, 'colour_noise must be in'),
    ],
)
def test_errors_say_what_is_known(options: dict, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        SyntheticRooms(**options)
