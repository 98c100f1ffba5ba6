"""HHA against planes of known angle, rooms of known gravity, real frames, and a training on it."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, TRANSFORMS

from mmcen.apis import CENInferencer
from mmcen.datasets import NYUv2Dataset
from mmcen.datasets.cache import open_cache
from mmcen.datasets.domains import normals_from_depth
from mmcen.datasets.hha import encode_hha, gravity_from_normals
from mmcen.datasets.transforms import CorruptModality
from mmcen.modalities import ModalitySpec
from tests.training import SMALL, two_steps

K = np.array([[50, 0, 31.5], [0, 50, 23.5], [0, 0, 1]], np.float64)
CAMERA = dict(camera=(50, 50, 31.5, 23.5), size=(64, 48))
NYUV2 = (518.8579, 519.4696, 325.5824, 253.7362)
DOWN = np.array([0.0, 1.0, 0.0])
ROWS, COLUMNS = np.mgrid[:48, :64]
RAYS = np.stack([(COLUMNS - 31.5) / 50, (ROWS - 23.5) / 50, np.ones((48, 64))], axis=-1)


def planes(*walls):
    """Depth (48, 64) of what is nearest among planes normal . P = -distance; 0 where none is."""
    with np.errstate(divide='ignore'):
        each = [-distance / (RAYS @ np.asarray(normal)) for normal, distance in walls]
    nearest = np.min([np.where(z > 0, z, np.inf) for z in each], axis=0)
    return np.where(nearest < 50, nearest, 0).astype(np.float32)


def turned(degrees, axis):
    """A rotation matrix by Rodrigues' formula."""
    return cv2.Rodrigues(np.deg2rad(degrees) * np.asarray(axis, np.float64))[0]


def box(rotation=None):
    """A room 3 m wide and 2.6 m high around a camera at 1.4 m, turned by ``rotation``."""
    walls = [([0, -1, 0], 1.4), ([0, 1, 0], 1.2), ([-1, 0, 0], 1.5), ([1, 0, 0], 1.5),
             ([0, 0, -1], 4.0)]  # fmt: skip
    rotation = np.eye(3) if rotation is None else rotation
    return planes(*[(rotation @ np.array(normal), distance) for normal, distance in walls])


@pytest.mark.parametrize(
    'angle, normal',
    [
        (0, [0, -1, 0]),  # floor
        (30, [0, -np.cos(np.pi / 6), -np.sin(np.pi / 6)]),  # a ramp that rises ahead
        (90, [0, 0, -1]),  # wall
        (90, [-0.8, 0, -0.6]),
        (120, [0.5, 0.5, -np.sqrt(0.5)]),  # leans over
        (180, [0, 1, 0]),  # ceiling
    ],
)
def test_angle_of_planes(angle, normal):
    depth = planes((normal, 1.2))
    hha = encode_hha(depth, K, gravity=DOWN)
    inside = cv2.erode((depth > 0).astype(np.uint8), np.ones((7, 7))) > 0
    inside &= depth < 8  # grazing rows of the floor step by more than a surface may
    assert inside.sum() > 300
    np.testing.assert_allclose(hha[inside, 2], 38 + angle, atol=0.3)


def test_disparity_and_height_in_closed_form():
    depth = box(turned(20, [1, 0, 0]))
    down = turned(20, [1, 0, 0]) @ DOWN
    hha = encode_hha(depth, K, 5 * down)
    np.testing.assert_allclose(hha[..., 0], np.minimum(310 / depth, 255), rtol=1e-5)
    height = 1.4 - (RAYS * depth[..., None]) @ down
    assert height.min() < 1e-3 < 1.5 < height.max()  # the floor is in sight
    np.testing.assert_allclose(hha[..., 1], (100 * height).clip(0, 255), atol=0.05)
    assert hha.dtype == np.float32


def test_nearer_than_a_metre_and_no_floor_in_sight():
    hha = encode_hha(planes(([0, 0, -1], 0.8)), K, DOWN)
    assert (hha[..., 0] == 255).all()
    np.testing.assert_allclose(hha[..., 1], 130 - 80 * RAYS[..., 1], atol=0.01)


def test_missing_depth_is_zero():
    depth = box()
    depth[:9, 5:20] = 0
    hha = encode_hha(depth, K, DOWN)
    assert not hha[:9, 5:20].any()
    assert (hha[12:, :, 0] > 0).all()
    assert not encode_hha(np.zeros((48, 64), np.float32), K).any()


@settings(max_examples=25, deadline=None)
@given(st.floats(-35, 35), st.floats(-25, 25), st.floats(-30, 30))
def test_gravity_of_a_room_is_found(pitch, roll, yaw):
    """However the camera is held, with normals of either sign, within half a degree."""
    rotation = turned(roll, [0, 0, 1]) @ turned(pitch, [1, 0, 0]) @ turned(yaw, [0, 1, 0])
    normals = normals_from_depth(box(rotation), K)
    for sign in (1, -1):
        found = gravity_from_normals(sign * normals)
        assert np.rad2deg(np.arccos(min(1, found @ rotation @ DOWN))) < 0.5


def test_gravity_is_found_in_two_stages():
    """As by the minimum of the paper's objective over all directions, at the last angle."""
    rng = np.random.default_rng(0)
    tilt = turned(30, [0.6, 0, 0.8])
    ideal = np.repeat([[0, -1, 0], [1, 0, 0], [0, 0, -1], [0.6, -0.64, -0.48]], 400, axis=0)
    normals = ideal @ tilt.T + rng.normal(0, 0.05, (1600, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    found = gravity_from_normals(normals)
    along = np.abs(normals @ found)
    floors, walls = along > np.cos(np.deg2rad(15)), along < np.sin(np.deg2rad(15))
    assert floors.sum() > 350
    assert walls.sum() > 700
    around = found + rng.normal(0, 0.02, (500, 3))
    around /= np.linalg.norm(around, axis=1, keepdims=True)
    squares = (normals @ np.vstack([found, around]).T) ** 2
    cost = squares[walls].sum(0) - squares[floors].sum(0)
    assert cost.argmin() == 0
    assert found @ tilt @ DOWN > np.cos(np.deg2rad(1))


def test_one_wall_or_nothing_leaves_the_cameras_own_down():
    wall = np.broadcast_to(np.array([0.6, 0, -0.8]), (50, 3))
    noise = np.random.default_rng(0).normal(0, 0.02, (50, 3))
    assert gravity_from_normals(wall + noise) @ DOWN > 0.99
    np.testing.assert_allclose(gravity_from_normals(wall * 0), DOWN)


def test_estimated_gravity_serves_the_encoding():
    rotation = turned(15, [1, 0, 0]) @ turned(-6, [0, 0, 1])
    depth = box(rotation)
    estimated, given_one = encode_hha(depth, K), encode_hha(depth, K, rotation @ DOWN)
    assert np.abs(estimated - given_one).max() < 3
    assert np.abs(encode_hha(depth, K, DOWN) - given_one).max() > 10


# --- in a pipeline


def sample(**kwargs):
    names = ('rgb', 'depth')
    arrays = dict(rgb=np.zeros((48, 64, 3), np.uint8), depth=box()[..., None])
    return dict(modalities=arrays, known_modalities=list(names)) | kwargs


def transform(**kwargs):
    return TRANSFORMS.build(dict(type='DepthToHHA', **CAMERA | kwargs))


def test_depth_goes_or_stays():
    gone = transform()(sample())
    assert list(gone['modalities']) == ['rgb', 'hha']
    assert gone['known_modalities'] == ['rgb', 'depth', 'hha']
    assert gone['modalities']['hha'].shape == (48, 64, 3)
    kept = transform(keep=True, name='geo')(sample())
    assert list(kept['modalities']) == ['rgb', 'depth', 'geo']


def test_corrupted_depth_is_not_in_the_cache(tmp_path):
    def stored():
        return sample(cache=cache, modality_paths=dict(depth=str(path)), modality_info=info)

    path = tmp_path / 'a.png'
    path.write_bytes(b'1')
    cache, info = open_cache('memory'), dict(depth=ModalitySpec('depth'))
    holes = CorruptModality('depth', 'missing_pixels', 0.75, seed=0)
    clean = encode_hha(box(), K)
    for corrupted in (True, False, True):
        given = holes(stored()) if corrupted else stored()
        wanted = encode_hha(given['modalities']['depth'][..., 0], K)
        found = transform()(given)['modalities']['hha']
        np.testing.assert_array_equal(found, wanted)
        assert np.array_equal(found, clean) is not corrupted


def test_camera_is_scaled_to_the_frames():
    double = dict(camera=(100, 100, 63.5, 47.5), size=(128, 96))
    for given_camera in (CAMERA, double):
        hha = transform(**given_camera, gravity=(0, 1, 0))(sample())['modalities']['hha']
        np.testing.assert_allclose(hha, encode_hha(box(), K, DOWN), atol=1e-3)


def test_a_frames_own_camera_and_gravity_go_first():
    own = dict(intrinsics=K, gravity=turned(9, [1, 0, 0]) @ DOWN)
    other = dict(camera=(70, 70, 10, 10), gravity=(1, 0, 0))
    hha = transform(**other)(sample(**own))['modalities']['hha']
    np.testing.assert_allclose(hha, encode_hha(box(), K, own['gravity']), atol=1e-3)


def test_stairs_of_quantisation_are_smoothed():
    """A floor that a camera looks down on, half a Kinect's pixels, in steps of 3.9 cm."""
    step, camera = 10 / 255, (260, 260, 159.5, 119.5)
    down = (0, np.cos(1.2), np.sin(1.2))
    column = 260 * 3 / (down[1] * (np.arange(240) - 119.5) + down[2] * 260)
    exact = np.broadcast_to(column[:, None], (240, 320))
    stairs = (np.rint(exact / step) * step).astype(np.float32)[..., None]
    errors = []
    for known_step in (0, step):
        cfg = dict(camera=camera, size=(320, 240), gravity=down)
        hha = transform(step=known_step, **cfg)(dict(modalities=dict(depth=stairs)))
        errors.append(np.abs(hha['modalities']['hha'][..., 2] - 38).mean())
    assert errors[0] > 10
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize(
    'kwargs, text',
    [
        (dict(camera=(50, 50, 31.5)), r'camera \(50, 50, 31.5\) and size \(64, 48\) are not'),
        (dict(size=(0, 48)), r'focal lengths and sizes above 0'),
        (dict(gravity=(0, 0, 0)), r'gravity must be a direction of 3 numbers, not all 0'),
        (dict(step=-1), 'step -1 must not be negative'),
        (dict(source='far'), r"no depth 'far' of one channel but \['rgb', 'depth'\]: put Load"),
        (dict(source='rgb'), r"no depth 'rgb' of one channel"),
    ],
)
def test_errors(kwargs, text):
    with pytest.raises(ValueError, match=text):
        transform(**kwargs)(sample())


def test_real_frames(data_root):
    """Floors are low and level, walls upright, in frames held at up to 20 degrees."""
    hha = dict(type='DepthToHHA', camera=NYUV2, size=(640, 480), step=10 / 255)
    load = [dict(type='LoadModalities'), dict(type='LoadLabel'), hha]
    dataset = NYUv2Dataset('train', str(data_root), pipeline=load)
    names = dataset.metainfo['classes']
    for index in (240, 720):
        made = dataset[index]
        values = made['modalities']['hha']
        of_class = {name: values[made['gt_seg_map'] == names.index(name)] for name in names}
        floor, wall = of_class['floor'], of_class['wall']
        assert len(floor) > 8000
        assert len(wall) > 8000
        assert np.median(floor[:, 1]) < 45 < 90 < np.median(wall[:, 1])
        assert np.median(floor[:, 2]) - 38 < 20
        assert abs(np.median(wall[:, 2]) - 128) < 12


@pytest.fixture
def nyud(tmp_path):
    """Six frames in the layout of NYUv2."""
    rng = np.random.default_rng(0)
    for folder in ('rgb', 'depth', 'masks', 'splits'):
        (tmp_path / folder).mkdir()
    for frame in range(6):
        pictures = dict(
            rgb=rng.integers(0, 256, (48, 64, 3)),
            depth=np.rint(1000 * box()).astype(np.uint16),
            masks=rng.integers(0, 41, (48, 64)),
        )
        for folder, picture in pictures.items():
            cv2.imwrite(f'{tmp_path}/{folder}/{frame}.png', picture)
    (tmp_path / 'splits' / 'train.txt').write_text('0\n1\n2\n3')
    (tmp_path / 'splits' / 'test.txt').write_text('4\n5')
    return tmp_path


def test_the_cache_keeps_it(nyud, monkeypatch):
    """As it is made without, for each setting of its own, and anew when the depth has changed."""
    made = []

    def encode(*args):
        made.append(args)
        return encode_hha(*args)

    monkeypatch.setattr('mmcen.datasets.transforms.hha.encode_hha', encode)
    cache = nyud / 'cache'
    cache.mkdir()

    def load(where=str(cache), **kwargs):
        hha = dict(type='DepthToHHA', **CAMERA | kwargs)
        pipeline = [dict(type='LoadModalities'), hha]
        dataset = NYUv2Dataset('train', str(nyud), pipeline=pipeline, cache=where)
        return [sample['modalities']['hha'].copy() for sample in dataset]

    expected = load(None)
    for count in (8, 8):  # four each
        for a, b in zip(load(), expected, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        assert len(made) == count
    for kwargs in (dict(gravity=(0, 1, 0)), dict(radius=2), dict(step=0.1), dict(camera=NYUV2)):
        del made[:]
        np.testing.assert_array_equal(load(**kwargs), load(None, **kwargs))
        assert len(made) == 8
    del made[:]
    cv2.imwrite(f'{nyud}/depth/0.png', np.full((48, 64), 2000, np.uint16))
    assert not np.array_equal(load()[0], expected[0])
    assert len(made) == 1


@pytest.mark.parametrize('streams', [('rgb', 'hha'), ('rgb', 'depth', 'hha')])
def test_two_steps(nyud, streams):
    """The shipped config, and by options with depth beside it."""
    train = 'train_dataloader.dataset'
    options = SMALL | {f'{part}_dataloader.dataset.data_root': str(nyud) for part in
                       ('train', 'val', 'test')}  # fmt: skip
    options |= {
        f'{train}.pipeline.3.transforms.0.min_side': 48,
        f'{train}.pipeline.3.transforms.0.crop_size': (48, 64),
        f'{train}.pipeline.3.transforms.1.size': (48, 64),
    }
    if 'depth' in streams:
        options |= {
            f'{train}.pipeline.1.keep': True,
            'val_dataloader.dataset.pipeline.1.keep': True,
            'test_dataloader.dataset.pipeline.1.keep': True,
            'model.data_preprocessor.modalities': [
                dict(name='rgb', mean=[124.0] * 3, std=[58.0] * 3),
                dict(name='depth', mean=[0.0], std=[5.0]),
                dict(name='hha', mean=[125.0, 111.0, 106.0], std=[55.0, 71.0, 37.0]),
            ],
        }
    metrics, runner = two_steps('nyud_refinenet_r50_hha.py', nyud / 'out', options)
    check_prediction(runner, nyud)
    assert runner.model.streams == streams
    for stream in streams:
        assert 0 <= metrics[f'{stream}/mIoU'] < 30
    assert 0 < metrics['mIoU'] < 30


def check_prediction(runner, folder):
    """One's own depth serves a model of HHA: the inferencer says what the test says."""
    cfg, checkpoint = runner.cfg, next((folder / 'out').glob('epoch_1.pth'))
    sample = DATASETS.build(cfg.test_dataloader.dataset)[0]
    (wanted,) = runner.model.eval().test_step(pseudo_collate([sample]))
    infer = CENInferencer(cfg, checkpoint, device='cpu', show_progress=False)
    assert set(infer.modalities) == {'rgb', 'depth'}
    paths = {name: str(folder / name / '4.png') for name in infer.modalities}
    (found,) = infer(paths)['predictions']
    same = found.outputs['ensemble'] == wanted.pred_sem_seg.data[0].numpy()
    assert same.mean() > 0.999
    assert found.outputs['ensemble'].any()
