"""TaskonomyDataset: Taskonomy's files, errors before the first step, normals in a mirror."""

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS

from mmcen.datasets import ForEachModality, SyntheticRooms
from mmcen.datasets.domains import normals_from_depth
from mmcen.datasets.encodings import to_file

DOMAINS = ['rgb', 'normal', 'depth_zbuffer', 'segment_semantic']
FRAMES = ['point_0_view_0', 'point_1_view_3', 'almena/point_2_view_0']


@pytest.fixture
def root(tmp_path):
    """Three frames of rendered rooms in Taskonomy's folders, one below its building."""
    rooms = SyntheticRooms(DOMAINS, size=(24, 32), length=3)
    for i, frame in enumerate(FRAMES):
        for name, values in rooms[i]['modalities'].items():
            path = tmp_path / name / f'{frame}_domain_{name}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            stored = to_file(name, values)
            cv2.imwrite(str(path), stored[..., ::-1] if stored.ndim == 3 else stored)
    (tmp_path / 'splits').mkdir()
    (tmp_path / 'splits' / 'train.txt').write_text('\n'.join(FRAMES))
    return tmp_path


def build(root, modalities=DOMAINS, **kwargs):
    load = [dict(type='LoadModalities'), dict(type='LoadLabel', optional=True)]
    cfg = dict(type='TaskonomyDataset', modalities=modalities, data_root=str(root), pipeline=load)
    return DATASETS.build(cfg | kwargs)


@pytest.mark.parametrize('ann_file', ['', 'splits/train.txt'])
def test_frames_in_physical_units(root, ann_file):
    dataset = build(root, ann_file=ann_file)
    rooms = SyntheticRooms(DOMAINS, size=(24, 32), length=3)
    assert len(dataset) == 3
    for i in range(3):
        sample, info = dataset[i], dataset.get_data_info(i)
        index = next(k for k, frame in enumerate(FRAMES) if frame in info['img_path'])
        expected = rooms[index]['modalities']
        assert list(sample['modalities']) == DOMAINS
        for name, step in zip(DOMAINS, (0, 1 / 255, 0.5 / 512, 0), strict=True):
            values = sample['modalities'][name]
            assert values.dtype == expected[name].dtype
            np.testing.assert_allclose(values, expected[name], atol=1.01 * step)


def test_any_order_and_choice(root):
    sample = build(root, ['normal', 'rgb'])[0]
    assert list(sample['modalities']) == ['normal', 'rgb']
    assert 'gt_seg_map' not in sample


def test_labels(root):
    sample = build(root, ['rgb'], labels=True, metainfo=dict(classes=tuple('abcdefghij')))[0]
    np.testing.assert_array_equal(
        sample['gt_seg_map'], SyntheticRooms(DOMAINS, size=(24, 32), length=3)[2]['gt_seg_map']
    )


def test_a_domain_is_missing_for_some_frames(root):
    (root / 'normal' / 'point_1_view_3_domain_normal.png').unlink()
    with pytest.raises(FileNotFoundError) as error:
        build(root)
    assert "modality 'normal': 1 of 3 files are missing, the first is" in str(error.value)
    assert 'point_1_view_3_domain_normal.png' in str(error.value)


def test_sizes_that_differ(root):
    path = root / 'rgb' / 'point_1_view_3_domain_rgb.png'
    cv2.imwrite(str(path), np.zeros((12, 16, 3), np.uint8))
    with pytest.raises(ValueError, match=r'differ in size \(width, height\), .*\(16, 12\)'):
        build(root)
    dataset = build(root, check_sizes=False)
    with pytest.raises(ValueError, match='must be aligned pixel by pixel'):
        [dataset[i] for i in range(3)]


def test_unknown_domains_and_empty_lists(root):
    with pytest.raises(ValueError, match="modality 'thermal' is unknown .*: choose one of"):
        build(root, ['rgb', 'thermal'])
    (root / 'splits' / 'val.txt').write_text('\n')
    with pytest.raises(ValueError, match='gives no frame: download Taskonomy'):
        build(root, ann_file='splits/val.txt')
    with pytest.raises(FileNotFoundError, match='there is no split file'):
        build(root, ann_file='splits/test.txt')
    with pytest.raises(FileNotFoundError, match="modality 'edge_texture': there is no folder"):
        build(root, ['rgb', 'edge_texture'])


def test_a_file_of_another_type(root):
    path = root / 'depth_zbuffer' / 'point_0_view_0_domain_depth_zbuffer.png'
    cv2.imwrite(str(path), np.zeros((24, 32), np.uint8))
    dataset = build(root)
    with pytest.raises(ValueError, match=r'domain_depth_zbuffer.png: .* is stored as uint16'):
        [dataset[i] for i in range(3)]


def mirrored(depth, intrinsics, direction):
    """Depth and camera of the same scene in a mirror."""
    height, width = depth.shape
    camera = intrinsics.copy()
    if direction in ('horizontal', 'diagonal'):
        depth, camera[0, 2] = depth[:, ::-1], width - 1 - camera[0, 2]
    if direction in ('vertical', 'diagonal'):
        depth, camera[1, 2] = depth[::-1], height - 1 - camera[1, 2]
    return np.ascontiguousarray(depth), camera


CAMERA = np.array([[40.0, 0, 20.0], [0, 40.0, 14.0], [0, 0, 1]])


def scene():
    depth = SyntheticRooms(['depth'], size=(24, 32), length=1, sensor=False)[0]
    depth = depth['modalities']['depth'][..., 0]
    return depth, normals_from_depth(depth, CAMERA)


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
def test_normals_turn_with_a_flip(direction):
    """As those of the mirrored geometry."""
    depth, normals = scene()
    flip = ForEachModality([dict(type='RandomFlip', prob=1.0, direction=direction)])
    sample = dict(modalities=dict(rgb=np.zeros((24, 32, 3), np.uint8), normal=normals))
    ours = flip(sample)['modalities']['normal']
    expected = normals_from_depth(*mirrored(depth, CAMERA, direction))
    assert np.abs(normals[..., :2]).max() > 0.5
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_two_flips_are_none():
    _, normals = scene()
    flips = [dict(type='RandomFlip', prob=1.0)] * 2
    ours = ForEachModality(flips)(dict(modalities=dict(normal=normals)))['modalities']['normal']
    np.testing.assert_allclose(ours, normals, atol=1e-6)


def test_normals_stay_unit_vectors():
    _, normals = scene()
    normals[:4] = 0  # unknown
    resize = ForEachModality([dict(type='Resize', scale=(53, 41))])
    ours = resize(dict(modalities=dict(normal=normals)))['modalities']['normal']
    length = np.linalg.norm(ours, axis=2)
    assert ours.shape == (41, 53, 3)
    assert ((np.abs(length - 1) < 1e-5) | (length == 0)).all()
    assert (length == 0).any()
