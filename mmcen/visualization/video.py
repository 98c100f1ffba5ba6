"""Write a video."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from ..files import whole_file

CODECS = {'.mp4': 'mp4v', '.avi': 'MJPG', '.webm': 'VP80', '.mkv': 'mp4v'}


def check_video(path: str | Path, rate: float) -> None:
    """Raise ValueError if a file cannot be a video by its suffix, or the rate is impossible."""
    if Path(path).suffix.lower() not in CODECS:
        raise ValueError(f'{path} is no video: choose one of the suffixes {", ".join(CODECS)}')
    if not 0 < rate < 1000:
        raise ValueError(f'{rate} frames per second: give a rate (--fps) above 0 and below 1000')


@contextmanager
def video_file(path: str | Path, rate: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that appends an image (H, W, 3) uint8 RGB to a video.

    The file appears when it is complete. Images of another size than the first are scaled to fit
    into it, beside black.

    Args:
        path: File to write, ``.mp4`` or ``.mkv`` (MPEG-4), ``.avi`` (Motion JPEG) or ``.webm``
            (VP8).
        rate: Frames per second.

    Raises:
        OSError: If the file is incomplete, such as on a full disk.
        ValueError: See :func:`check_video`; or if OpenCV cannot write the file.
    """
    check_video(path, rate)
    path = Path(path)
    with whole_file(path) as part:
        unfinished = part.with_name(part.name + path.suffix)  # OpenCV goes by the suffix
        writer = cv2.VideoWriter()
        size, count = (0, 0), 0

        def add(image: np.ndarray) -> None:
            nonlocal size, count
            if not writer.isOpened():
                size = image.shape[1], image.shape[0]
                code = cv2.VideoWriter.fourcc(*CODECS[path.suffix.lower()])
                if not writer.open(str(unfinished), code, rate, size):
                    raise ValueError(f'OpenCV cannot write {path}: choose another suffix')
            if image.shape[1::-1] != size:
                image = _fitted(image, size)
            writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            count += 1

        try:
            yield add
            writer.release()
            _check_complete(unfinished, path, count)
            os.replace(unfinished, part)
        finally:
            writer.release()
            unfinished.unlink(missing_ok=True)


def _fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image scaled to fit into (width, height), at the upper left of black."""
    height, width = image.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    new = max(1, round(scale * width)), max(1, round(scale * height))
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    canvas[: new[1], : new[0]] = cv2.resize(image, new, interpolation=cv2.INTER_AREA)
    return canvas


def _check_complete(file: Path, path: Path, count: int) -> None:
    """Raise OSError unless a file has all frames: OpenCV does not say that a disk is full."""
    reader, there = cv2.VideoCapture(str(file)), 0
    while there < count and reader.grab():
        there += 1
    reader.release()
    if there < count:
        raise OSError(
            f'{path}: {there} of {count} frames could be written: make room on the disk, or choose '
            'another place'
        )
