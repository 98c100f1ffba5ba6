"""Files to arrays: what is stored comes out, and what does not fit is refused by name."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.dataset import pseudo_collate
from mmengine.registry import TRANSFORMS
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from mmcen.datasets import LoadLabel, LoadModalities, PackModalities
from mmcen.modalities import ModalitySpec

SHAPE = (12, 16)
COLOUR = ModalitySpec('it')
DEPTH = ModalitySpec('it', unit={'uint8': 10 / 255, 'uint16': 'mm', 'float32': 1.0})
RAW = ModalitySpec('it', kind='raw')


def save(path: Path, array: np.ndarray) -> str:
    """Store an array, colour given as RGB, without loss but for .jpg."""
    if path.suffix == '.npy':
        np.save(path, array)
    elif array.ndim == 3:
        cv2.imwrite(str(path), array[..., ::-1])
    else:
        cv2.imwrite(str(path), array)
    return str(path)


def load(path: str, info: ModalitySpec) -> np.ndarray:
    sample = {'modality_paths': {'it': path}, 'modality_info': {'it': info}}
    return LoadModalities()(sample)['modalities']['it']


def noise(dtype: type, *channels: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.uniform(1, 200, (*SHAPE, *channels))).astype(dtype)


# --- modalities


def test_colour_is_rgb(tmp_path: Path) -> None:
    picture = noise(np.uint8, 3)
    assert np.array_equal(load(save(tmp_path / 'a.png', picture), COLOUR), picture)
    smooth = np.zeros((*SHAPE, 3), np.uint8) + np.uint8([200, 100, 20])
    out = load(save(tmp_path / 'a.jpg', smooth), COLOUR)
    assert out.dtype == np.uint8
    assert np.abs(out.astype(int) - smooth).max() < 4
    padded = Path(tmp_path / 'b.jpg')  # some cameras write after the end mark; Pillow reads these
    padded.write_bytes(Path(tmp_path / 'a.jpg').read_bytes() + b'more')
    assert np.abs(load(str(padded), COLOUR).astype(int) - smooth).max() < 4


def test_colour_may_have_a_palette(tmp_path: Path) -> None:
    indexed = Image.fromarray(np.array([[0, 1]], np.uint8)).convert('P')
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    indexed.save(tmp_path / 'a.png')
    assert load(str(tmp_path / 'a.png'), COLOUR).tolist() == [[[10, 20, 30], [40, 50, 60]]]


@pytest.mark.parametrize(
    ('dtype', 'suffix', 'unit'),
    [
        (np.uint8, '.png', 10 / 255),
        (np.uint16, '.png', 0.001),
        (np.uint16, '.npy', 0.001),
        (np.float32, '.npy', 1.0),
        (np.float32, '.tiff', 1.0),
        ('>f4', '.npy', 1.0),
    ],
)
def test_depth_is_metres(tmp_path: Path, dtype: type, suffix: str, unit: float) -> None:
    stored = noise(dtype)
    depth = load(save(tmp_path / f'a{suffix}', stored), DEPTH)
    assert depth.shape == (*SHAPE, 1)
    assert depth.dtype == np.float32
    assert depth.dtype.isnative
    assert depth[..., 0] == pytest.approx(stored.astype(np.float64) * unit, rel=1e-6)


def test_depth_not_measured_is_zero(tmp_path: Path) -> None:
    stored = noise(np.float32, 1)
    stored[0, :3, 0] = np.nan, np.inf, 0
    depth = load(save(tmp_path / 'a.npy', stored), DEPTH)
    assert depth[0, :3, 0].tolist() == [0, 0, 0]
    assert np.array_equal(depth[1:], stored[1:])


@pytest.mark.parametrize('dtype', [np.uint8, np.float32, np.float64, np.int16, bool])
def test_raw_keeps_its_values(tmp_path: Path, dtype: type) -> None:
    stored = noise(dtype, 2)
    out = load(save(tmp_path / 'a.npy', stored), RAW)
    assert out.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    assert np.array_equal(out, stored.astype(np.float32))
    assert load(save(tmp_path / 'b.npy', stored[..., 0]), RAW).shape == (*SHAPE, 1)


def test_sample_after_loading(tmp_path: Path) -> None:
    paths = {
        'depth': save(tmp_path / 'd.png', noise(np.uint16)),
        'rgb': save(tmp_path / 'c.png', noise(np.uint8, 3)),
    }
    sample = {'modality_paths': paths, 'modality_info': {'rgb': COLOUR, 'depth': DEPTH}}
    out = LoadModalities()(sample)
    assert list(out['modalities']) == ['depth', 'rgb']  # the order of the streams
    assert out['img_shape'] == out['ori_shape'] == SHAPE


@pytest.mark.parametrize(
    ('array', 'suffix', 'info', 'text'),
    [
        (noise(np.uint16), '.png', COLOUR, r'uint16 of shape \(12, 16\), but colour is uint8 of'),
        (noise(np.uint8, 5), '.npy', COLOUR, r'uint8 of shape \(12, 16, 5\), but colour is uint8'),
        (noise(np.uint16, 3), '.npy', COLOUR, 'is uint16 .* store it as 8-bit RGB'),
        (noise(np.uint8, 3), '.png', DEPTH, r'shape \(12, 16, 3\), but depth is \(H, W\)'),
        (noise(np.float64), '.npy', DEPTH, 'stored as float64, .* modality .it. is .*add float64='),
        (-noise(np.float32), '.npy', DEPTH, 'depth is not negative'),
        (noise(np.complex64), '.npy', RAW, 'raw modality is numbers'),
        (np.zeros((2, 3, 4, 5), np.uint8), '.npy', RAW, r'of shape \(2, 3, 4, 5\)'),
    ],
)
def test_wrong_types(
    tmp_path: Path, array: np.ndarray, suffix: str, info: ModalitySpec, text: str
) -> None:
    path = save(tmp_path / f'frame{suffix}', array)
    with pytest.raises(ValueError, match=text) as raised:
        load(path, info)
    assert path in str(raised.value)


def test_a_picture_of_depth_is_not_depth(tmp_path: Path) -> None:
    indexed = Image.fromarray(noise(np.uint8)).convert('P')
    indexed.save(tmp_path / 'a.png')
    with pytest.raises(ValueError, match='not a colour picture of them'):
        load(str(tmp_path / 'a.png'), DEPTH)


@pytest.mark.filterwarnings('ignore:Corrupt EXIF data')  # Pillow, before it raises
@pytest.mark.parametrize('keep', [0.95, 0.5, 0.02, 0.0])
@pytest.mark.parametrize(
    ('suffix', 'dtype', 'info'),
    [
        ('.jpg', np.uint8, COLOUR),
        ('.png', np.uint8, COLOUR),
        ('.png', np.uint16, DEPTH),
        ('.npy', np.float32, DEPTH),
        ('.tiff', np.float32, DEPTH),
    ],
)
def test_truncated_files(
    tmp_path: Path, suffix: str, dtype: type, info: ModalitySpec, keep: float
) -> None:
    array = noise(dtype, 3) if info is COLOUR else noise(dtype)
    path = Path(save(tmp_path / f'frame{suffix}', np.tile(array, (8, 8, 1)[: array.ndim])))
    load(str(path), info)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(ValueError, match=r'cannot be read .*truncated or of another format') as why:
        load(str(path), info)
    assert str(path) in str(why.value)


def test_flipped_bits_of_a_png(tmp_path: Path) -> None:
    """Its checksums are verified: the second reader takes files that the first one refuses."""
    depth = np.linspace(1500, 4000, 64 * 96).reshape(64, 96).astype(np.uint16)
    path = Path(save(tmp_path / 'frame.png', depth))
    load(str(path), DEPTH)
    data = path.read_bytes()
    for place in np.random.default_rng(0).integers(8 * len(data), size=200):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=r'frame\.png cannot be read'):
            load(str(path), DEPTH)


@pytest.mark.parametrize(
    ('mode', 'options'),
    [
        ('1', {}), ('L', {}), ('L', {'bits': 4}), ('L', {'transparency': 3}), ('I;16', {}),
        ('LA', {}), ('RGB', {}), ('RGB', {'transparency': (1, 2, 3)}), ('RGBA', {}),
    ],
)  # fmt: skip
def test_png_of_any_layout(tmp_path: Path, mode: str, options: dict) -> None:
    """Whoever decodes it, it is what Pillow reads."""
    channels = {'LA': 2, 'RGB': 3, 'RGBA': 4}.get(mode)
    if mode == '1':
        picture = Image.fromarray(noise(np.uint8) > 100)
    elif mode == 'I;16':
        picture = Image.fromarray(noise(np.uint16) * 300)
    else:
        picture = Image.fromarray(noise(np.uint8, *([channels] if channels else [])))
    assert picture.mode == mode
    picture.save(tmp_path / 'a.png', **options)
    with Image.open(tmp_path / 'a.png') as image:
        expected = np.array(image)
    assert np.array_equal(load(str(tmp_path / 'a.png'), RAW).squeeze(), expected)


@pytest.mark.parametrize('mode', ['L', 'LA', 'RGB', 'RGBA', 'P', 'CMYK'])
def test_colour_of_any_layout(tmp_path: Path, mode: str) -> None:
    """It is what Pillow converts to RGB; CMYK may differ by rounding."""
    channels = {'LA': 2, 'RGB': 3, 'RGBA': 4, 'CMYK': 4}.get(mode)
    picture = Image.fromarray(noise(np.uint8, *([channels] if channels else [])))
    picture = picture.convert('P') if mode == 'P' else picture
    if mode == 'CMYK':
        picture = Image.fromarray(np.full((*SHAPE, 4), (10, 90, 200, 30), np.uint8), 'CMYK')
    files = [tmp_path / f'a.{suffix}' for suffix in ('jpg', 'tiff' if mode == 'CMYK' else 'png')]
    for path in files if mode in ('L', 'RGB', 'CMYK') else files[1:]:
        picture.save(path)
        expected = np.array(Image.open(path).convert('RGB')).astype(int)
        found = load(str(path), COLOUR)
        assert found.dtype == np.uint8
        assert found.shape == (*SHAPE, 3)
        assert np.abs(found - expected).max() <= (1 if path.suffix == '.jpg' else 0)
        found[:] = 0  # transforms may write into it


def test_colour_of_16_bits_is_read_as_8(tmp_path: Path) -> None:
    stored = noise(np.uint16, 3) * 300
    out = load(save(tmp_path / 'a.png', stored), COLOUR)
    assert np.array_equal(out, stored >> 8)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'frame\.png is missing.*convert it again'):
        load(str(tmp_path / 'frame.png'), COLOUR)


def test_sizes_differ(tmp_path: Path) -> None:
    paths = {
        'rgb': save(tmp_path / 'c.png', noise(np.uint8, 3)),
        'depth': save(tmp_path / 'd.png', noise(np.uint16)[1:]),
    }
    sample = {'modality_paths': paths, 'modality_info': {'rgb': COLOUR, 'depth': DEPTH}}
    with pytest.raises(ValueError, match=r'd\.png has \(11, 16\) pixels .* \(12, 16\).*aligned'):
        LoadModalities()(sample)


# --- labels


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    count=st.integers(1, 20),
    reduce=st.booleans(),
    dropped=st.sets(st.integers(0, 19)),
    seed=st.integers(0, 999),
)
def test_label_is_what_mmseg_makes_of_it(
    tmp_path: Path, count: int, reduce: bool, dropped: set, seed: int
) -> None:
    stored = np.random.default_rng(seed).integers(0, count + reduce, SHAPE).astype(np.uint8)
    stored[0, 0] = 255
    path = save(tmp_path / 'label.png', stored)
    kept = [c for c in range(count) if c not in dropped]
    label_map = {c: kept.index(c) if c in kept else 255 for c in range(count)}
    sample = {'seg_map_path': path, 'reduce_zero_label': reduce, 'num_classes': count}
    sample |= {'label_map': label_map if dropped else None}
    ours = LoadLabel()(sample | {'seg_fields': []})
    theirs = LoadAnnotations()(sample | {'seg_fields': []})
    assert np.array_equal(ours['gt_seg_map'], theirs['gt_seg_map'])
    assert ours['gt_seg_map'].dtype == np.uint8
    assert ours['seg_fields'] == ['gt_seg_map']


def test_label_with_a_palette_and_in_16_bits(tmp_path: Path) -> None:
    stored = noise(np.uint8) % 5
    indexed = Image.fromarray(stored).convert('P')
    indexed.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    indexed = Image.frombytes('P', SHAPE[::-1], stored.tobytes())
    indexed.putpalette(list(range(255, -1, -1)) * 3)
    indexed.save(tmp_path / 'a.png')
    for path in (str(tmp_path / 'a.png'), save(tmp_path / 'b.png', stored.astype(np.uint16))):
        out = LoadLabel()({'seg_map_path': path, 'num_classes': 5})
        assert np.array_equal(out['gt_seg_map'], stored)


@pytest.mark.parametrize(
    ('value', 'reduce', 'dtype', 'text'),
    [
        (5, False, np.uint8, r'label 5, but labels are 0\.\.4, and 255 for void'),
        (6, True, np.uint8, r'label 6, but labels are 0\.\.5'),
        (254, True, np.uint8, 'label 254'),
        (261, False, np.uint16, 'label 261'),  # 5 modulo 256
        (-1, False, np.int16, 'label -1'),
    ],
)
@pytest.mark.parametrize('void', [0, 255])
def test_label_out_of_range(
    tmp_path: Path, value: int, reduce: bool, dtype: type, text: str, void: int
) -> None:
    stored = np.zeros(SHAPE, dtype)
    stored[1, 1], stored[2, 2] = value, void
    path = save(tmp_path / 'label.npy', stored)
    sample = {'seg_map_path': path, 'num_classes': 5, 'reduce_zero_label': reduce}
    with pytest.raises(ValueError, match=text) as raised:
        LoadLabel()(sample)
    assert path in str(raised.value)


def test_bad_labels(tmp_path: Path) -> None:
    def refused(array: np.ndarray, text: str, **sample: object) -> None:
        path = save(tmp_path / 'label.png', array)
        with pytest.raises(ValueError, match=text):
            LoadLabel()({'seg_map_path': path, 'num_classes': 5, **sample})

    refused(noise(np.uint8, 3), r'\(12, 16, 3\), but a label map is one channel')
    zeros = np.zeros(SHAPE, np.uint8)
    refused(zeros, r'has \(12, 16\) pixels .* but c\.png', ori_shape=(9, 9), img_path='c.png')
    path = Path(save(tmp_path / 'label.png', noise(np.uint8)))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=r'label\.png cannot be read'):
        LoadLabel()({'seg_map_path': str(path)})
    with pytest.raises(FileNotFoundError, match=r'none\.png is missing'):
        LoadLabel()({'seg_map_path': str(tmp_path / 'none.png')})


def test_no_label() -> None:
    with pytest.raises(ValueError, match=r'c\.png has no label map: .*optional=True'):
        LoadLabel()({'img_path': 'c.png'})
    assert LoadLabel(optional=True)({'img_path': 'c.png'}) == {'img_path': 'c.png'}


# --- packing


def test_packing() -> None:
    rgb = noise(np.uint8, 3)[:, ::-1]  # as flips leave it, with negative strides
    sample = {
        'modalities': {'rgb': rgb, 'depth': noise(np.float32, 1)},
        'gt_seg_map': noise(np.uint8),
        'img_path': 'a.jpg',
        'flip': True,
    }
    packed = PackModalities()(sample)
    assert list(packed['inputs']) == ['rgb', 'depth']
    assert np.array_equal(packed['inputs']['rgb'].numpy(), rgb.transpose(2, 0, 1))
    assert packed['inputs']['rgb'].is_contiguous()
    assert packed['inputs']['depth'].shape == (1, *SHAPE)
    assert np.array_equal(packed['data_samples'].gt_sem_seg.data[0], sample['gt_seg_map'])
    assert packed['data_samples'].flip is True
    batch = pseudo_collate([packed, packed])
    assert [t.shape for t in batch['inputs']['rgb']] == [(3, *SHAPE)] * 2


@pytest.mark.parametrize('dtype', [np.uint8, np.float32, np.float64, bool])
@pytest.mark.parametrize('channels', [1, 2, 3, 6])
def test_packing_of_views(dtype: type, channels: int) -> None:
    """Crops and mirrored pictures, which are views with strides of all signs."""
    whole = noise(dtype, channels)
    for rows in (slice(2, 9), slice(9, 2, -1)):
        for columns in (slice(3, 14), slice(14, 3, -1)):
            view = whole[rows, columns]
            packed = PackModalities()({'modalities': {'it': view}})['inputs']['it']
            assert packed.is_contiguous()
            assert packed.numpy().dtype == dtype
            assert np.array_equal(packed.numpy(), view.transpose(2, 0, 1))
            packed[:] = 0  # a tensor of its own
            assert whole.any()


def test_all_are_registered_in_the_root() -> None:
    names = ['LoadModalities', 'LoadLabel', 'ForEachModality', 'PackModalities']
    for name in [*names, 'RandomScale', 'RandomScaleCrop']:
        assert TRANSFORMS.get(name).__module__.startswith('mmcen.')
