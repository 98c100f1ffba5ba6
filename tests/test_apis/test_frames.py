"""Files are found under the names that people give them."""

import itertools
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mmcen.apis.frames import find_frames
from mmcen.apis.pairing import nearest
from mmcen.apis.recordings import open_frames
from mmcen.datasets import CityscapesRGBDDataset
from mmcen.datasets.transforms import reading
from mmcen.modalities import ModalitySpec, read_specs

NAMES = ['rgb', 'depth']
OWN = dict(rgb='rgb', depth='depth')
SUFFIXED = dict(
    rgb=ModalitySpec('rgb', dir='', suffix='_img.jpg'),
    depth=ModalitySpec('depth', dir='', suffix='_range.png', unit='mm'),
)
TYPED = dict(rgb=ModalitySpec('rgb', suffix='.jpg'), depth=ModalitySpec('depth', unit='mm'))
OUTSIDE = dict(rgb=ModalitySpec('rgb', dir='../out'), depth=ModalitySpec('depth', dir='../out'))
NESTED = dict(
    rgb=ModalitySpec('rgb', dir='cam/left'), depth=ModalitySpec('depth', dir='tof', unit='mm')
)


def touch(*files):
    for file in files:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()


def found(inputs, **kwargs):
    """Name and files of each frame."""
    frames = find_frames(inputs, NAMES, **kwargs)
    return {one.name: ' '.join(one.files.values()) for one in frames}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    'files, inputs, specs, wanted',
    [
        ('rgb/1.jpg depth/1.npy rgb/notes.txt', OWN, None, {'1': 'rgb/1.jpg depth/1.npy'}),
        ('rgb/a_rgb.png depth/a_depth.png', OWN, None, {'a': 'rgb/a_rgb.png depth/a_depth.png'}),
        ('rgb/color_01.png depth/depth_01.png', OWN, None,
         {'01': 'rgb/color_01.png depth/depth_01.png'}),
        ('rgb/image_1.png depth/image_1.png', OWN, None,
         {'1': 'rgb/image_1.png depth/image_1.png'}),
        ('all/frame-7.color.png all/frame-7.depth.png all/frame-7.pose.txt', 'all', None,
         {'frame-7': 'all/frame-7.color.png all/frame-7.depth.png'}),
        ('all/RGB1.png all/Depth1.png all/1_label.png', dict(rgb='all', depth='all'), None,
         {'1': 'all/RGB1.png all/Depth1.png'}),
        ('all/a_rgb.png all/a_depth.png all/b.png', dict(rgb='all'), None,
         {'a': 'all/a_rgb.png', 'b': 'all/b.png'}),
        ('desk/rgb.png desk/depth.png', 'desk', None, {'desk': 'desk/rgb.png desk/depth.png'}),
        ('all/x_img.jpg all/x_range.png all/x_label.png', 'all', SUFFIXED,
         {'x': 'all/x_img.jpg all/x_range.png'}),
        ('c/x_img.jpg c/x_other.jpg d/x_range.png', dict(rgb='c', depth='d'), SUFFIXED,
         {'x': 'c/x_img.jpg d/x_range.png'}),
        ('all/x.jpg all/x.png', 'all', TYPED, {'x': 'all/x.jpg all/x.png'}),
        ('rgb/x.jpg rgb/x.bmp depth/x.png', OWN, TYPED, {'x': 'rgb/x.jpg depth/x.png'}),
        ('in/Color/2.png in/depth/2.png in/Color/10.png in/label/2.png', 'in', None,
         {'2': 'in/Color/2.png in/depth/2.png', '10': 'in/Color/10.png'}),
        ('in/cam/left/2.png in/tof/2.png', 'in', NESTED, {'2': 'in/cam/left/2.png in/tof/2.png'}),
        ('in/rgb/2.png out/2.png', 'in', OUTSIDE, {'2': 'in/rgb/2.png'}),
        ('d/d41d8.png', dict(depth='d'), None, {'d41d8': 'd/d41d8.png'}),
        ('rgb/c.png rgb/d.png depth/c.png depth/d.png', OWN, None,
         {'c': 'rgb/c.png depth/c.png', 'd': 'rgb/d.png depth/d.png'}),
    ],
)  # fmt: skip
def test_files_belong_together_by_name(files, inputs, specs, wanted):
    touch(*files.split())
    frames = found(inputs, specs=specs)
    assert list(frames.items()) == list(wanted.items())


def test_folders_that_overlap_in_pairs():
    touch(*[f'{name}/{i}.png' for name, own in dict(a='01', b='12', c='02').items() for i in own])
    frames = find_frames(dict(a='a', b='b', c='c'), ['a', 'b', 'c'])
    assert [sorted(frame.files) for frame in frames] == [['a', 'c'], ['a', 'b'], ['b', 'c']]


def test_incomplete_frames_are_kept_or_skipped():
    touch('rgb/a_rgb.png', 'rgb/c_rgb.png', 'depth/a_depth.png')
    assert found(OWN) == {'a': 'rgb/a_rgb.png depth/a_depth.png', 'c': 'rgb/c_rgb.png'}
    assert list(found(OWN, skip_incomplete=True)) == ['a']


@pytest.mark.parametrize(
    'files, inputs, message',
    [
        ('rgb/a.png rgb/a_rgb.png', dict(rgb='rgb'), "a.png and rgb/a_rgb.png are both frame 'a'"),
        ('all/1.png all/2.png', dict(rgb='all', depth='all'),
         "modality 'rgb': all is the folder of several modalities, and no name of a file says rgb"),
        ('all/cat/1.png', 'all', 'all has no picture, and no folder named as one of the mod'),
        ('a.png', 'a.png', "'a.png' is not MODALITY=FILE, such as rgb=a.png, and is no folder"),
        ('rgb/1.5.png depth/1.6.png', OWN, 'the names are time stamps, so add --pair nearest'),
        ('rgb/1.png rgb/2.png depth/3.png', OWN,
         "no frame of 'rgb' is in another folder, its first one is '1', theirs '3'"),
        ('rgb/1.png depth/1.txt', OWN, 'has no picture: .*; without depth leave this folder out'),
        ('a.png', dict(disparity='a.png'), 'depth = focal length in pixels \\* baseline in metres'),
        ('a.png', dict(rgb='a.png', color='a.png'), "'rgb' is given twice, also as 'color'"),
        ('rgb/a.png', '', 'inputs: the path is empty: name a file or folder'),
        ('rgb/a.png', dict(rgb=''), "modality 'rgb': the path is empty: name a file or folder"),
    ],
)  # fmt: skip
def test_what_does_not_match_is_said(files, inputs, message):
    touch(*files.split())
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        found(inputs)


def test_other_names_are_accepted_with_a_word(capsys):
    touch('a.png', 'b.png')
    (frame,) = find_frames(dict(colour='a.png', d='b.png'), NAMES)
    assert frame.files == dict(rgb='a.png', depth='b.png')
    assert capsys.readouterr().out == "'colour' is taken as 'rgb'\n'd' is taken as 'depth'\n"
    # a model of that name takes it, and so does one whose config calls its files so
    assert find_frames(dict(color='a.png'), ['rgb', 'color'])[0].files == dict(color='a.png')
    specs = {s.name: s for s in read_specs(None, CityscapesRGBDDataset.MODALITIES)}
    (frame,) = find_frames(dict(disparity='b.png'), NAMES, specs=specs)
    assert frame.files == dict(depth='b.png')


def test_times_pair_as_tum_associates_them():
    """The greedy pairs of TUM RGB-D's associate.py, written out."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = (rng.uniform(0, 1, n).tolist() for n in (25, 30))
        near = [(abs(a - b), a, b) for a, b in itertools.product(first, second)]
        wanted, left, right = {}, set(first), set(second)
        for gap, a, b in sorted(near):
            if gap < 0.02 and a in left and b in right:
                left.remove(a)
                right.remove(b)
                wanted[a] = b
        pairs = nearest(first, second, 0.02)
        gaps = sorted(abs(first[i] - second[j]) for i, j in pairs.items())
        np.testing.assert_allclose(gaps, sorted(abs(a - b) for a, b in wanted.items()))
        assert len(set(pairs.values())) == len(pairs)


def test_folders_of_time_stamps_and_lists_of_pairs():
    touch('rgb/100.010.png', 'rgb/100.050.png', 'rgb/100.090.png')
    touch('depth/100.000.png', 'depth/100.055.png', 'depth/100.300.png')
    frames = found(OWN, max_gap=0.02)
    wanted = {
        '100.010': 'rgb/100.010.png depth/100.000.png',
        '100.050': 'rgb/100.050.png depth/100.055.png',
    }
    assert frames == wanted | {'100.090': 'rgb/100.090.png'}
    assert found(OWN, max_gap=0.02, skip_incomplete=True) == wanted
    with pytest.raises(ValueError, match='is within 1 ms of one of .*: the smallest gap is 5 ms'):
        found(OWN, max_gap=0.001)
    Path('associations.txt').write_text(
        '# depth first\n100.000 depth/100.000.png 100.010 rgb/100.010.png\n'
        '100.055 depth/100.055.png 100.050 rgb/100.050.png\n'
    )
    assert found('associations.txt') == wanted
    Path('associations.txt').write_text('100.000 depth/100.000.png rgb/100.010.png\n')
    with pytest.raises(ValueError, match='is no line of time stamps and files: write it as'):
        found('associations.txt')
    touch('rgb/room.png')
    with pytest.raises(ValueError, match='rgb/room.png is no time stamp in seconds'):
        found(OWN, max_gap=0.02)


def film(path, count=5, size=(48, 64)):
    """A video of grey frames that get brighter, red at the left."""
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*'MJPG'), 12, size[::-1])
    for i in range(count):
        image = np.full((*size, 3), 40 * i, np.uint8)
        image[:, :20] = (0, 0, 255)
        writer.write(image)
    writer.release()


SPECS = dict(rgb=ModalitySpec('rgb'), depth=ModalitySpec('depth', unit=dict(uint16='mm')))


def test_a_video_and_a_folder_are_frames_in_order():
    film('clip.avi')
    touch(*(f'depth/{i}.png' for i in (1, 2, 9, 10, 11)))
    frames, rate = open_frames(dict(color='clip.avi', depth='depth'), NAMES, SPECS)
    assert rate == 12
    assert [frame.files['depth'] for frame in frames[2:4]] == ['depth/9.png', 'depth/10.png']
    assert frames[0].paths() == ['clip.avi', 'depth/1.png']
    for i in (0, 1, 4, 2, 2):  # forwards, and back
        image = frames[i].read().files['rgb']
        assert np.abs(image[:, 30:].astype(int) - 40 * i).max() <= 3
        assert np.abs(image[:, :10].mean((0, 1)) - (255, 0, 0)).max() < 12
    for given, message in (
        (dict(rgb='clip.avi', depth='clip.avi'), 'a video, which stores 8-bit colours and no dis'),
        (dict(rgb='clip.avi', depth='depth/1.png'), "'depth' is given beside a video: give a vid"),
        (dict(rgb='no.mp4'), "modality 'rgb': there is no file no.mp4"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            open_frames(given, NAMES, SPECS)
    touch('depth/12.png')
    with pytest.raises(ValueError, match='clip.avi has 5 frames, depth has 6 frames: each needs'):
        open_frames(dict(rgb='clip.avi', depth='depth'), NAMES, SPECS)
    Path('bad.mp4').write_text('no video')
    with pytest.raises(ValueError, match='bad.mp4 cannot be read as a video'):
        open_frames(dict(rgb='bad.mp4'), NAMES, SPECS)


def test_a_video_has_the_limit_of_pictures(monkeypatch):
    film('clip.avi', size=(48, 64))
    monkeypatch.setattr(reading, 'MAX_PIXELS', 48 * 64 - 1)
    with pytest.raises(ValueError, match='clip.avi cannot be read as a video .*64x48 pixels, more'):
        open_frames(dict(rgb='clip.avi'), NAMES, SPECS)


COLOUR = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
MILLIMETRES = np.arange(8, dtype=np.uint16).reshape(2, 4) * 1000


class FakeRealSense(SimpleNamespace):
    """The part of pyrealsense2 that is called, with a recording of two frames."""

    stream, format = SimpleNamespace(color=0), SimpleNamespace(rgb8=1, bgr8=2)

    def config(self):
        return SimpleNamespace(enable_device_from_file=lambda path, repeat_playback: None)

    def align(self, stream):
        return SimpleNamespace(process=lambda frames: frames)

    def pipeline(self):
        def image(array):
            profile = SimpleNamespace(format=lambda: 2)
            return lambda: SimpleNamespace(get_data=lambda: array, get_profile=lambda: profile)

        frames = SimpleNamespace(
            get_color_frame=image(COLOUR[..., ::-1]), get_depth_frame=image(MILLIMETRES // 2)
        )
        left = iter([(True, frames), (True, frames), (False, None)])
        device = SimpleNamespace(
            as_playback=lambda: SimpleNamespace(set_real_time=lambda on: None),
            first_depth_sensor=lambda: SimpleNamespace(get_depth_scale=lambda: 0.002),
        )
        return SimpleNamespace(
            start=lambda config: SimpleNamespace(get_device=lambda: device),
            try_wait_for_frames=lambda milliseconds: next(left),
            stop=lambda: None,
        )


def fake_kinect(closed=None, error=None):
    """The part of pykinect_azure that is called, with a recording of two frames."""
    opaque = np.full((2, 4, 1), 255, np.uint8)
    capture = SimpleNamespace(
        get_color_image=lambda: (True, np.concatenate([COLOUR[..., ::-1], opaque], 2)),
        get_transformed_depth_image=lambda: (True, MILLIMETRES),
    )
    left = iter([(True, capture), (True, capture), (False, capture)])

    def update():
        if error is not None:
            raise error
        return next(left)

    close = [].clear if closed is None else lambda: closed.append(True)
    playback = SimpleNamespace(update=update, close=close)
    return SimpleNamespace(initialize_libraries=lambda: None, start_playback=lambda path: playback)


@pytest.mark.parametrize(
    'file, package, fake',
    [('a.bag', 'pyrealsense2', FakeRealSense), ('a.mkv', 'pykinect_azure', fake_kinect)],
)
@pytest.mark.parametrize('unit', ['mm', 'm', dict(uint16='mm')])
def test_recordings_of_depth_cameras(monkeypatch, file, package, fake, unit):
    """By made-up modules: this shows what is made of their answers, not that they give them."""
    touch(file)
    specs = dict(depth=ModalitySpec('depth', unit=unit), rgb=ModalitySpec('rgb'))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f'takes {package}: pip install {package}'):
        list(open_frames(file, NAMES, specs)[0])
    monkeypatch.setitem(sys.modules, package, fake())
    frames, _ = open_frames(file, ['depth', 'rgb'], specs)
    one, two = frames
    assert (one.name, two.name, list(one.files)) == ('000000', '000001', ['depth', 'rgb'])
    np.testing.assert_array_equal(two.files['rgb'], COLOUR)
    stored = two.files['depth']
    metres = stored * specs['depth'].metres(stored.dtype.name)
    np.testing.assert_allclose(metres, MILLIMETRES / 1000, rtol=1e-6)


@pytest.mark.parametrize('error', [RuntimeError('no header'), SystemExit(1)])
def test_a_recording_that_cannot_be_read_is_named_and_closed(monkeypatch, error):
    """pykinect_azure ends the program where a file is damaged."""
    touch('a.mkv', 'a.bag')
    closed = []
    monkeypatch.setitem(sys.modules, 'pykinect_azure', fake_kinect(closed, error))
    with pytest.raises(ValueError, match='a.mkv cannot be read as a recording of a depth camera'):
        list(open_frames('a.mkv', NAMES, SPECS)[0])
    assert closed == [True]
    monkeypatch.setitem(sys.modules, 'pykinect_azure', fake_kinect(closed))
    next(iter(open_frames('a.mkv', NAMES, SPECS)[0]))  # the rest is not wanted
    assert closed == [True, True]
    monkeypatch.setitem(sys.modules, 'pyrealsense2', FakeRealSense(config=lambda: raising(error)))
    with pytest.raises(ValueError, match='a.bag cannot be read as a recording of a depth camera'):
        list(open_frames('a.bag', NAMES, SPECS)[0])


def raising(error):
    raise error
