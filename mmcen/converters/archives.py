"""Read official archives and the images in them; every error names the file."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import cv2
import numpy as np
from PIL import Image

from ..datasets.transforms import reading

BYTES_PER_PIXEL = 8  # of an unpacked file, at most


class Archive:
    """Files of an official archive, downloaded or extracted; several threads can read it.

    Args:
        folder: Folder of the archive.
        name: Top folder in the archive; names of files are relative to it.
        zipped: File name of the archive. It takes precedence over the extracted folder, which may
            be incomplete.

    Raises:
        ValueError: If neither exists, or the archive is damaged.
    """

    def __init__(self, folder: Path, name: str, zipped: str) -> None:
        self.place = folder / zipped
        self.zip: ZipFile | None = None
        if not self.place.is_file():
            self.place = folder / name
            if self.place.is_dir():
                return
            raise ValueError(f'{folder} has neither {zipped} nor {name}/: download {zipped} first')
        try:
            self.zip = ZipFile(self.place)
        except BadZipFile as error:
            raise ValueError(f'{self.place} is damaged ({error}): download it again') from error
        self.prefix = f'{name}/'
        self.names = set(self.zip.namelist())

    def __contains__(self, file: str) -> bool:
        if self.zip is None:
            return (self.place / file).is_file()
        return self.prefix + file in self.names

    def files(self, pattern: str) -> list[str]:
        """Return the files that match a pattern such as ``train/*/*.png``, sorted."""
        if self.zip is None:
            found = (path.relative_to(self.place) for path in self.place.glob(pattern))
        else:
            below = (
                Path(n.removeprefix(self.prefix)) for n in self.names if n.startswith(self.prefix)
            )
            found = (path for path in below if path.match(pattern))
        return sorted(path.as_posix() for path in found)

    def check(self, files: Iterable[str]) -> None:
        """Reject an archive in which a file is missing."""
        missing = [file for file in files if file not in self]
        if missing:
            raise ValueError(
                f'{self.place} lacks {len(missing)} files, the first is {missing[0]}: download it '
                'again'
            )

    def read(self, file: str) -> bytes:
        try:
            if self.zip is not None:
                entry = self.zip.getinfo(self.prefix + file)
                _check_unpacked_size(entry.file_size)
                return self.zip.read(entry)
            return (self.place / file).read_bytes()
        except (OSError, KeyError, RuntimeError, ValueError, zlib.error, BadZipFile) as error:
            raise ValueError(
                f'{self.place}: {file} cannot be read ({error}): download it again'
            ) from error


def _check_unpacked_size(size: int) -> None:
    """Raise ValueError before a small entry of an archive fills the memory."""
    limit = BYTES_PER_PIXEL * reading.MAX_PIXELS
    if size > limit:
        raise ValueError(
            f'it has {size} bytes unpacked, more than {limit}: set the environment variable '
            'MMCEN_MAX_PIXELS to take it'
        )


def decode(data: bytes, name: str, dtype: str, channels: tuple[int, ...] = ()) -> np.ndarray:
    """Decode an image completely, and compare its type with the official one.

    Args:
        data: Bytes of the file.
        name: Name of the file, for errors.
        dtype: Official type of the values.
        channels: ``(3,)`` for colour, ``()`` for one channel.

    Returns:
        (H, W) or (H, W, 3).
    """
    try:
        with Image.open(io.BytesIO(data)) as image:  # raises where OpenCV would fill with grey
            picture = np.array(image)
    except (
        OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError
    ) as error:  # fmt: skip
        raise ValueError(f'{name} cannot be read ({error}): fetch it again') from error
    if dtype == 'uint16' and picture.dtype == np.int32:  # 16-bit PNG in Pillow before 10.3
        picture = picture.astype(np.uint16)
    if picture.dtype != dtype or picture.shape[2:] != channels:
        raise ValueError(
            f'{name} is {picture.dtype} of shape {picture.shape}, but the official one is {dtype} '
            f'with {channels[0] if channels else 1} channels: fetch it again'
        )
    return picture


def check_sizes(frame: str, sizes: Mapping[str, tuple[int, ...]]) -> None:
    """Reject a frame whose images differ in size."""
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f'the pictures of frame {frame} differ in size (height, width), {sizes}: fetch it again'
        )


def as_png(picture: np.ndarray) -> bytes:
    return cv2.imencode('.png', picture)[1].tobytes()
