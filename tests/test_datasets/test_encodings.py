"""Physical units, files and images of the domains: one table, there and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmcen.datasets import EncodeDomains, SyntheticRooms
from mmcen.datasets.encodings import (
    DEPTH,
    ENCODINGS,
    from_file,
    paint,
    to_file,
    to_image,
    to_physical,
)
from mmcen.datasets.nyuv2 import colour_map


def physical(domain, draw):
    """Values of a domain within what its image can show."""
    encoding = ENCODINGS[domain]
    shape = (3, 4, encoding.channels)
    unit = draw(hnp.arrays(np.float64, shape, elements=st.floats(0, 1)))
    high = 127 if encoding.log else encoding.high  # metres
    low = 0.01 if encoding.log else encoding.low
    values = low + unit * (high - low)
    return np.rint(values).astype(np.uint8) if encoding.unit == 1 else values.astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), domain=st.sampled_from(sorted(ENCODINGS)))
def test_files_keep_values_to_half_a_unit(data, domain):
    values = physical(domain, data.draw)
    stored = to_file(domain, values)
    assert stored.dtype == ENCODINGS[domain].dtype
    assert stored.shape == ((3, 4) if values.shape[2] == 1 else (3, 4, 3))
    back = from_file(domain, stored)
    assert back.shape == values.shape
    assert back.dtype == (np.uint8 if ENCODINGS[domain].unit == 1 else np.float32)
    assert np.abs(back - values.astype(np.float64)).max() <= 0.501 * ENCODINGS[domain].unit


@settings(max_examples=40, deadline=None)
@given(data=st.data(), domain=st.sampled_from(sorted(set(ENCODINGS) - {'segment_semantic'})))
def test_images_are_0_to_255_and_lead_back(data, domain):
    values = physical(domain, data.draw)
    image = to_image(domain, values)
    assert image.shape == (3, 4, 3)
    assert image.dtype == np.float32
    assert 0 <= image.min() <= image.max() <= 255
    np.testing.assert_allclose(to_physical(domain, image), values, rtol=1e-4, atol=1e-4)


def test_images_are_the_official_codes():
    """From what is stored in 16 bits: log(1 + d) / 11.1, edges / 11355 and / 11584, times 255."""
    stored = np.array([[1, 500, 3000, 9000]], np.uint16)
    d = stored.astype(float)
    official = {
        'depth_euclidean': 255 * np.log(1 + d) / 11.1,
        'edge_texture': 255 * d / 11355,
        'edge_occlusion': 255 * d / 11584,
    }
    for domain, image in official.items():
        ours = to_image(domain, from_file(domain, stored))
        np.testing.assert_allclose(ours, np.repeat(image[..., None], 3, 2), rtol=1e-4)
    normal = np.array([[[0, 128, 255]]], np.uint8)
    np.testing.assert_allclose(to_image('normal', from_file('normal', normal)), normal, atol=1e-4)


def test_depth_that_is_missing():
    stored = to_file('depth_zbuffer', np.array([[[0.0], [2.0], [500.0]]], np.float32))
    np.testing.assert_array_equal(stored, [[65535, 1024, 65534]])
    depth = from_file('depth_zbuffer', stored)
    np.testing.assert_allclose(depth[0, :, 0], [0, 2, 65534 / 512])
    assert to_image('depth_zbuffer', depth)[0, 0].max() == 0


def test_limits_in_place_of_the_logarithm():
    depth = np.array([[[0.0], [2.5], [20.0]]], np.float32)
    image = to_image('depth_zbuffer', depth, (0, 10))
    np.testing.assert_allclose(image[0, :, 0], [0, 63.75, 255])
    np.testing.assert_allclose(to_physical('depth_zbuffer', image, (0, 10))[0, :2], depth[0, :2])


def test_classes_are_painted():
    palette = np.array([[10, 20, 30], [40, 50, 60]])
    image = paint(np.array([[[1], [255], [0]]], np.uint8), palette)
    np.testing.assert_array_equal(image, [[[40, 50, 60], [0, 0, 0], [10, 20, 30]]])
    with pytest.raises(ValueError, match='class 2 has no colour, the palette has 2'):
        paint(np.array([[[2]]], np.uint8), palette)


def test_every_domain_of_the_rooms():
    """The transform on a sample; classes take the data set's palette, or one that is given."""
    names = [name for name in ENCODINGS if not name.startswith('segment_unsup')]
    rooms = SyntheticRooms(names, size=(24, 32), length=1)
    raw = rooms[0]
    encoded = EncodeDomains()(dict(raw))['modalities']
    assert list(encoded) == names
    for name, image in encoded.items():
        assert image.shape == (24, 32, 3)
        assert image.std() > 1, name
        if name != 'segment_semantic':
            np.testing.assert_array_equal(image, to_image(name, raw['modalities'][name]))
    colours = np.array(rooms.metainfo['palette'])[raw['gt_seg_map']]
    np.testing.assert_array_equal(encoded['segment_semantic'], colours)
    other = EncodeDomains(palette=colour_map(10))(dict(raw))['modalities']['segment_semantic']
    np.testing.assert_array_equal(other, np.array(colour_map(10))[raw['gt_seg_map']])


def test_what_is_no_domain():
    with pytest.raises(ValueError, match="unknown domain 'thermal': the known ones are"):
        to_image('thermal', np.zeros((2, 2, 1)))
    with pytest.raises(ValueError, match=r"'normal' has 3 channels, got shape \(2, 2, 1\)"):
        to_image('normal', np.zeros((2, 2, 1)))
    with pytest.raises(ValueError, match="'depth_zbuffer' is stored as uint16 of 1 .*, got uint8"):
        from_file('depth_zbuffer', np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match=r"limits of 'rgb' must be \(low, high\), got \(1, 1\)"):
        EncodeDomains(limits=dict(rgb=(1, 1)))
    with pytest.raises(ValueError, match='has no modalities: put LoadModalities before this'):
        EncodeDomains()({})
    assert ENCODINGS['depth_zbuffer'] is DEPTH
