"""Decode the file of a modality or a label; every error names the file."""

from __future__ import annotations

import io
import os
import struct
import zlib
from math import prod

import cv2
import numpy as np
from mmengine import fileio
from PIL import Image

from ...modalities import ModalitySpec
from ..encodings import from_file
from .plausible import check_bits, check_colour, check_depth

JPEG_START, JPEG_END = b'\xff\xd8\xff', b'\xff\xd9'
PNG_START = b'\x89PNG\r\n\x1a\n'
PNG_LAYOUT = slice(24, 26)  # in its header: bits of a sample; 0 grey, 2 colour, 3 palette
PNG_PLAIN = (b'\x08\x00', b'\x10\x00', b'\x08\x02')
# A small file may claim a huge image. The default is Pillow's limit, 0.5 GiB of colour.
MAX_PIXELS = int(os.environ.get('MMCEN_MAX_PIXELS', 178_956_970))
if 'MMCEN_MAX_PIXELS' in os.environ:
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS


def read_array(path: str, backend_args: dict | None = None, indices: bool = False) -> np.ndarray:
    """Decode an image or a ``.npy`` file without changing its values.

    Args:
        path: File name, or an address for mmengine's file backends.
        backend_args: Config of the file backend.
        indices: Whether to keep the indices of a palette image, as for label maps, instead of its
            colours.

    Returns:
        (H, W) or (H, W, C), colour in RGB order, of the stored dtype.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is truncated, damaged or not an image, or claims more than ``MAX_PIXELS``
            pixels; the environment variable ``MMCEN_MAX_PIXELS`` sets this limit.
    """
    try:
        data = fileio.get(path, backend_args=backend_args)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'{path} is missing: the data set lists it, so fetch or convert it again'
        ) from error
    try:
        if str(path).endswith('.npy'):
            return _decode_npy(data)
        _check_size(data)
        return _decode_image(data, indices)
    except Exception as error:  # decoders fed with arbitrary bytes may raise anything
        raise ValueError(
            f'{path} cannot be read ({error or type(error).__name__}): it is truncated or of '
            'another format, fetch or convert it again'
        ) from error


def _decode_npy(data: bytes) -> np.ndarray:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0
    shape, _, dtype = (header if version == (1, 0) else np.lib.format.read_array_header_2_0)(file)
    claimed = prod(shape) * dtype.itemsize
    if dtype.hasobject or claimed != len(data) - file.tell():
        raise ValueError(
            f'its header claims {dtype} of shape {shape}, {claimed} bytes, and '
            f'{len(data) - file.tell()} follow'
        )
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _check_size(data: bytes) -> None:
    """Check the size in the header before memory is allocated, and the checksums of a PNG.

    Pillow reads some damaged files that OpenCV rejects.
    """
    if data.startswith(PNG_START):
        _verify_png(data)
        check_pixels(*struct.unpack('>II', data[16:24]))
    else:
        with Image.open(io.BytesIO(data)) as image:
            check_pixels(*image.size)
            if image.format == 'JPEG':  # read at an eighth of its size: OpenCV hides what is wrong
                image.draft(image.mode, (1, 1))
                image.load()


def check_pixels(width: int, height: int) -> None:
    """Raise ValueError if a picture or a frame has more pixels than ``MAX_PIXELS``."""
    if width * height > MAX_PIXELS:
        raise ValueError(
            f'it claims {width}x{height} pixels, more than {MAX_PIXELS}: set the environment '
            'variable MMCEN_MAX_PIXELS to take it'
        )


def _verify_png(data: bytes) -> None:
    """Raise ValueError unless all chunks are present and their checksums are correct."""
    start = len(PNG_START)
    while True:
        (length,) = struct.unpack_from('>I', data, start)
        kind = data[start + 4 : start + 8]
        end = start + 8 + length
        (checksum,) = struct.unpack_from('>I', data, end)
        if zlib.crc32(memoryview(data)[start + 4 : end]) != checksum:
            raise ValueError(f'the checksum of its part {kind.decode("latin-1")} is wrong')
        if kind == b'IEND':
            return
        start = end + 4


def _decode_image(data: bytes, indices: bool) -> np.ndarray:
    picture = _decode_fast(data)
    if picture is not None:
        return picture
    with Image.open(io.BytesIO(data)) as image:
        if image.mode in ('P', 'CMYK') and not indices:
            return np.array(image.convert('RGB'))
        array = np.array(image)
        # Pillow before 10.3 gives 16-bit PNG as int32.
        return array.astype(np.uint16) if image.format == 'PNG' and image.mode == 'I' else array


def _decode_fast(data: bytes) -> np.ndarray | None:
    """Decode by OpenCV if the result equals Pillow's; else return None.

    OpenCV reads JPEG three times as fast, but fills the missing part of a truncated file with grey
    without an error, so it only gets files with an end mark. It returns nothing for a broken PNG.
    It would convert palettes to colours, and keep 16 bits of colour and transparency, which Pillow
    drops. Neither rotates by EXIF, because depth has no EXIF.
    """
    whole_jpeg = data.startswith(JPEG_START) and data.endswith(JPEG_END)
    plain_png = data.startswith(PNG_START) and data[PNG_LAYOUT] in PNG_PLAIN
    if not (whole_jpeg or plain_png):
        return None
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.shape[2:] == (4,):
        return None
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB) if picture.ndim == 3 else picture


def as_modality(raw: np.ndarray, info: ModalitySpec, path: str) -> np.ndarray:
    """Check that a decoded file fits its modality, and convert it to the form of a sample.

    Args:
        raw: Decoded values.
        info: Description of the modality.
        path: Name of the file in errors.

    Returns:
        (H, W, C): colour uint8 RGB, grey as three equal channels, without opacity; depth float32 in
        metres, C = 1, 0 for missing (stored as 0, NaN or infinity); a domain in physical units; raw
        uint8 or float32 as stored.

    Raises:
        ValueError: If the type of the file does not fit its modality.
    """
    if not isinstance(raw, np.ndarray) or raw.size == 0:
        what = f'of shape {raw.shape}' if isinstance(raw, np.ndarray) else type(raw).__name__
        raise ValueError(f'{path} holds no values ({what}): give an array (H, W) or (H, W, C)')
    return _FORMS[info.kind](raw, info, path)


def _as_colour(raw: np.ndarray, info: ModalitySpec, path: str) -> np.ndarray:
    channels = raw.shape[2] if raw.ndim == 3 else 1
    if raw.dtype != np.uint8 or raw.ndim not in (2, 3) or channels > 4:
        raise ValueError(
            f'{path} is {raw.dtype} of shape {raw.shape}, but colour is uint8 of shape (H, W, 3): '
            "store it as 8-bit RGB, or declare the modality's kind='raw'"
        )
    if channels == 3:
        return raw
    check_colour(channels, path)
    shape = raw.shape[:2]  # grey, grey and opacity, or colour and opacity, which Pillow drops, too
    colour = raw.reshape(*shape, channels)[..., : 3 if channels == 4 else 1]
    return np.ascontiguousarray(np.broadcast_to(colour, (*shape, 3)))


def _as_depth(raw: np.ndarray, info: ModalitySpec, path: str) -> np.ndarray:
    if raw.ndim == 3 and raw.shape[2] == 1:
        raw = raw[..., 0]
    if raw.ndim != 2:
        raise ValueError(
            f'{path} has shape {raw.shape}, but depth is (H, W): store one channel of distances, '
            'not a colour picture of them'
        )
    metres = info.metres(raw.dtype.name)
    if metres is None:
        raise ValueError(
            f'{path} is stored as {raw.dtype}, but the unit of modality {info.name!r} is '
            f'{info.unit}: add {raw.dtype}=<metres per stored number> to its unit, or predict with '
            '--depth-unit <metres per stored number>'
        )
    check_bits(raw.dtype.name, info.unit, path)
    depth = np.multiply(raw, np.float32(metres), dtype=np.float32)
    if raw.dtype.kind == 'f':
        depth[~np.isfinite(depth)] = 0
    if raw.dtype.kind != 'u' and depth.min() < 0:
        raise ValueError(
            f'{path} holds a depth of {depth.min():g} m, but depth is not negative: '
            'store 0 where nothing was measured'
        )
    check_depth(depth, path)
    return depth[..., None]


def _as_raw(raw: np.ndarray, info: ModalitySpec, path: str) -> np.ndarray:
    if raw.ndim not in (2, 3) or raw.dtype.kind not in 'buif':
        raise ValueError(
            f'{path} is {raw.dtype} of shape {raw.shape}, but a raw modality is numbers of shape '
            '(H, W) or (H, W, C): store it so'
        )
    array = raw if raw.ndim == 3 else raw[..., None]
    return array if array.dtype == np.uint8 else array.astype(np.float32, copy=False)


def _as_domain(raw: np.ndarray, info: ModalitySpec, path: str) -> np.ndarray:
    try:
        return from_file(info.domain, raw)
    except ValueError as error:
        raise ValueError(f'{path}: {error}: store it as Taskonomy does') from error


_FORMS = {'colour': _as_colour, 'depth': _as_depth, 'domain': _as_domain, 'raw': _as_raw}
