"""Videos are complete or absent."""

import resource

import cv2
import numpy as np
import pytest

from mmcen.visualization.video import video_file


def write_noise(path, count, bytes_left):
    frames = np.random.default_rng(0).integers(0, 256, (count, 96, 128, 3)).astype(np.uint8)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with video_file(path, 10) as add:
            resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, before[1]))
            for image in frames:
                add(image)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize('suffix', ['mp4', 'avi', 'webm', 'mkv'])
def test_a_video_on_a_full_disk_is_no_video(tmp_path, suffix):
    """A limit of the size of a file stands for the disk, OpenCV reports neither."""
    path = tmp_path / f'film.{suffix}'
    with pytest.raises(OSError, match=rf'film.{suffix}: \d+ of 20 frames could be written'):
        write_noise(path, 20, 40_000)
    assert list(tmp_path.iterdir()) == []
    write_noise(path, 20, 10_000_000)
    assert path.is_file()


def test_frames_of_another_size_keep_their_proportions(tmp_path):
    path = tmp_path / 'film.avi'
    with video_file(path, 10) as add:
        add(np.zeros((96, 256, 3), np.uint8))
        add(np.full((96, 128, 3), 255, np.uint8))
    video = cv2.VideoCapture(str(path))
    video.read()
    _, image = video.read()
    assert image.shape == (96, 256, 3)
    assert image[:, :120].min() > 200
    assert image[:, 136:].max() < 50
