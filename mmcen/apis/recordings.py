"""Videos, and recordings of depth cameras, as frames."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..datasets.encodings import to_file
from ..datasets.transforms.reading import check_pixels
from ..modalities import ModalitySpec
from .frames import Frame, check_no_gap, find_frames
from .names import ModalityNames

VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v')


class Video:
    """Frames of a video file, which are decoded when they are asked for.

    Args:
        path: Video file.

    Raises:
        ValueError: If it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._reader = self._open()
        self.rate: float = self._reader.get(cv2.CAP_PROP_FPS) or 30.0
        self._at = -1  # the frame that was decoded last
        self._image: np.ndarray | None = None
        self._length: int | None = None

    def _open(self) -> Any:
        reader = cv2.VideoCapture(self.path)
        if not reader.isOpened():
            raise ValueError(f'{self.path} cannot be read as a video: convert it to H.264 .mp4')
        width = reader.get(cv2.CAP_PROP_FRAME_WIDTH)
        try:
            check_pixels(int(width), int(reader.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        except ValueError as error:
            raise ValueError(f'{self.path} cannot be read as a video ({error})') from error
        return reader

    def __len__(self) -> int:
        """Count the frames by decoding them, because files often state another number."""
        if self._length is None:
            reader, self._length = self._open(), 0
            while reader.grab():
                self._length += 1
        return self._length

    def __getitem__(self, index: int) -> np.ndarray:
        """Return a frame (H, W, 3) uint8 RGB; one after the other is fast."""
        if index < self._at:
            self._reader, self._at = self._open(), -1
        while self._at < index:
            if not self._reader.grab():
                raise ValueError(f'{self.path} has no frame {index} that can be decoded')
            self._at, self._image = self._at + 1, None
        if self._image is None:
            there, image = self._reader.retrieve()
            if not there:
                raise ValueError(f'{self.path}: frame {index} is damaged: convert the video again')
            self._image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return self._image


@dataclass(frozen=True)
class VideoImage:
    """A frame of a video, decoded when it is called."""

    video: Video
    index: int

    @property
    def path(self) -> str:
        """The video's file."""
        return self.video.path

    def __call__(self) -> np.ndarray:
        """Return (H, W, 3) uint8 RGB."""
        return self.video[self.index]


def open_frames(
    inputs: Any,
    modalities: Sequence[str],
    specs: Mapping[str, ModalitySpec],
    skip_incomplete: bool = False,
    max_gap: float | None = None,
) -> tuple[Iterable[Frame], float | None]:
    """Find frames in files, folders, videos or recordings.

    Args:
        inputs: As for :func:`~mmcen.apis.frames.find_frames`; or videos, with folders of as many
            files for other modalities; or the recording of a RealSense (``.bag``) or an Azure
            Kinect (``.mkv``).
        modalities: Modalities that the model takes.
        specs: Their specifications.
        skip_incomplete: See :func:`~mmcen.apis.frames.find_frames`.
        max_gap: See :func:`~mmcen.apis.frames.find_frames`.

    Returns:
        Frames, a list or, of a recording, an iterator; and frames per second of a video.

    Raises:
        FileNotFoundError: See :func:`~mmcen.apis.frames.find_frames`.
        ImportError: If the package that reads a recording is not installed.
        ValueError: See :func:`~mmcen.apis.frames.find_frames`; also if depth is a video, or videos
            and folders differ in their number of frames.
    """
    if isinstance(inputs, (str, os.PathLike)) and Path(inputs).is_file():
        read = CAMERAS.get(Path(inputs).suffix.lower())
        if read is not None:
            check_no_gap(max_gap)
            return _of_camera(read(str(inputs)), str(inputs), specs), None
    if isinstance(inputs, Mapping) and any(map(_is_video, inputs.values())):
        check_no_gap(max_gap)
        given = ModalityNames(modalities, specs).resolve(inputs)
        return _of_videos({n: given[n] for n in modalities if n in given}, specs)
    return find_frames(inputs, modalities, skip_incomplete, specs, max_gap), None


def _is_video(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike)) and Path(value).suffix.lower() in VIDEOS


def _of_videos(
    given: Mapping[str, Any], specs: Mapping[str, ModalitySpec]
) -> tuple[list[Frame], float]:
    files: dict[str, Video | list[str]] = {}
    for name, place in given.items():
        spec = specs[name]
        if not _is_video(place):
            if not (isinstance(place, (str, os.PathLike)) and Path(place).is_dir()):
                raise ValueError(
                    f"modality '{name}' is given beside a video: give a video too, or a folder "
                    'with a file for each of its frames'
                )
            folder = find_frames({name: place}, list(specs), specs=specs)
            files[name] = [str(frame.files[name]) for frame in folder]
        elif name == 'depth' or spec.kind == 'depth' or spec.domain.startswith('depth'):
            raise ValueError(
                f"modality '{name}': {place} is a video, which stores 8-bit colours and no "
                'distances: give a folder with a depth file for each frame of the colour video'
            )
        elif not Path(place).is_file():
            raise FileNotFoundError(f"modality '{name}': there is no file {place}")
        else:
            files[name] = Video(os.fspath(place))
    counts = {name: len(own) for name, own in files.items()}
    count = next(iter(counts.values()))
    if len(set(counts.values())) > 1 or not count:
        told = ', '.join(f'{given[name]} has {own} frames' for name, own in counts.items())
        raise ValueError(f'{told}: each needs as many as the others, in the same order, at least 1')
    frames = [
        Frame(
            f'{i:06d}',
            {
                n: VideoImage(own, i) if isinstance(own, Video) else own[i]
                for n, own in files.items()
            },
        )
        for i in range(count)
    ]
    return frames, next(own.rate for own in files.values() if isinstance(own, Video))


def _of_camera(
    images: Iterator[tuple[np.ndarray, np.ndarray]], path: str, specs: Mapping[str, ModalitySpec]
) -> Iterator[Frame]:
    """Frames of a recording: colour, and depth registered to it in metres."""
    taken = [name for name in ('rgb', 'depth') if name in specs]
    if not taken:
        raise ValueError(f'{path} has rgb and depth, and the model takes {" ".join(specs)}')

    def frames() -> Iterator[Frame]:
        count = 0
        for count, (colour, metres) in enumerate(_readable(images, path), 1):
            files = {'rgb': colour, 'depth': metres}
            if 'depth' in taken:
                files['depth'] = _as_stored(metres, specs['depth'])
            own = {name: files[name] for name in specs if name in taken}
            yield Frame(f'{count - 1:06d}', own, dict.fromkeys(own, path))
        if not count:
            raise ValueError(f'{path} has no frame with colour and depth')

    return frames()


def _readable(images: Iterator[Any], path: str) -> Iterator[Any]:
    """Yield the same; an error of a camera's software becomes a ValueError that names the file."""
    try:
        yield from images
    except (ImportError, ValueError):
        raise
    except (Exception, SystemExit) as error:  # pykinect_azure ends the program
        reason = 'its reader stopped' if isinstance(error, SystemExit) else error
        raise ValueError(
            f'{path} cannot be read as a recording of a depth camera ({reason}): copy it again, or '
            f'give a video as rgb={path}'
        ) from error


def _as_stored(metres: np.ndarray, spec: ModalitySpec) -> np.ndarray:
    """Depth as files of the modality store it."""
    if spec.kind == 'domain':
        return to_file(spec.domain, metres[..., None])
    unit = spec.metres('float32')
    if unit is not None:
        return metres / np.float32(unit)
    unit = spec.metres('uint16') or 0.001
    return (metres / unit).round().clip(0, 65535).astype(np.uint16)


def _package(name: str, path: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f'{path} is taken as a recording of {what}, which takes {name}: pip install {name}, or '
            f'give a video as rgb={path} ({error})'
        ) from error


def read_realsense(path: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield colour (H, W, 3) uint8 RGB, and depth (H, W) in metres that is registered to it.

    Args:
        path: Recording (``.bag``) of a RealSense camera.

    Raises:
        ImportError: If pyrealsense2 is not installed.
        ValueError: If colour is recorded in another format than RGB8 or BGR8.
    """
    rs = _package('pyrealsense2', path, 'a RealSense')
    config, pipeline = rs.config(), rs.pipeline()
    config.enable_device_from_file(path, repeat_playback=False)
    device = pipeline.start(config).get_device()
    device.as_playback().set_real_time(False)  # every frame, however long it takes
    scale = np.float32(device.first_depth_sensor().get_depth_scale())
    align = rs.align(rs.stream.color)
    try:
        while True:
            there, frames = pipeline.try_wait_for_frames(5000)
            if not there:
                return
            aligned = align.process(frames)
            colour, depth = aligned.get_color_frame(), aligned.get_depth_frame()
            if colour and depth:
                yield _realsense_colour(rs, colour, path), np.asarray(depth.get_data()) * scale
    finally:
        pipeline.stop()


def _realsense_colour(rs: Any, frame: Any, path: str) -> np.ndarray:
    form = frame.get_profile().format()
    if form not in (rs.format.rgb8, rs.format.bgr8):
        raise ValueError(f'{path} stores colour as {form}: record it as rgb8 or bgr8')
    image = np.array(frame.get_data())
    return image if form == rs.format.rgb8 else image[..., ::-1].copy()


def read_kinect(path: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield colour (H, W, 3) uint8 RGB, and depth (H, W) in metres that is registered to it.

    Args:
        path: Recording (``.mkv``) of an Azure Kinect.

    Raises:
        ImportError: If pykinect_azure is not installed.
    """
    kinect = _package('pykinect_azure', path, 'an Azure Kinect')
    kinect.initialize_libraries()
    playback = kinect.start_playback(path)
    try:
        there, capture = playback.update()
        while there:
            has_colour, colour = capture.get_color_image()  # BGR, or with opacity
            has_depth, depth = capture.get_transformed_depth_image()  # millimetres
            if has_colour and has_depth:
                yield colour[..., 2::-1].copy(), depth * np.float32(0.001)
            there, capture = playback.update()
    finally:
        playback.close()


CAMERAS = {'.bag': read_realsense, '.mkv': read_kinect}
