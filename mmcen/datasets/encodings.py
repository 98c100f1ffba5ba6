"""Convert image domains between physical units, files, and images of 0..255.

Files have the format of Taskonomy. Images are the inputs and outputs of translation models: three
channels of 0..255, as in the official code (depth as ``log(1 + d) / 11.1``, edges divided by 11355
and 11584, for d and edges as stored in 16 bits).
"""

from dataclasses import dataclass

import numpy as np

MISSING_DEPTH = 65535  # Taskonomy's value for missing depth; 0 in physical units


@dataclass(frozen=True)
class Encoding:
    """Encoding of one domain.

    Args:
        channels: Number of channels C of the physical values.
        low, high: Values that become 0 and 255 in the image; of ``log(1 + p / unit)`` with ``log``.
        dtype: Type of the file.
        offset, unit: Physical value = offset + unit * stored value.
        log: Whether the image is logarithmic.
        missing: Stored value of the physical 0.
    """

    channels: int = 1
    low: float = 0.0
    high: float = 1.0
    dtype: str = 'uint8'
    offset: float = 0.0
    unit: float = 1 / 255
    log: bool = False
    missing: int | None = None


DEPTH = Encoding(1, 0, 11.1, 'uint16', unit=1 / 512, log=True, missing=MISSING_DEPTH)
PICTURE = Encoding(3, 0, 255, unit=1)
CURVATURE = 10.0  # 1/m: a ball of 10 cm
ENCODINGS = {
    'rgb': PICTURE,
    'normal': Encoding(3, -1, 1, offset=-1, unit=2 / 255),
    'reshading': Encoding(),
    'depth_euclidean': DEPTH,
    'depth_zbuffer': DEPTH,
    'principal_curvature': Encoding(
        2, -CURVATURE, CURVATURE, offset=-CURVATURE, unit=2 * CURVATURE / 255
    ),
    'edge_occlusion': Encoding(1, 0, 11584 / 65535, 'uint16', unit=1 / 65535),
    'edge_texture': Encoding(1, 0, 11355 / 65535, 'uint16', unit=1 / 65535),
    'segment_unsup2d': PICTURE,
    'segment_unsup25d': PICTURE,
    'segment_semantic': Encoding(1, 0, 255, unit=1),  # classes; painted by paint()
}
CLASSES = 'segment_semantic'
VECTORS = ('normal',)  # unit vectors of the camera frame, which a flip mirrors


def encoding_of(domain: str) -> Encoding:
    """Return the encoding of a domain; 'depth' is short for 'depth_zbuffer'.

    Raises:
        ValueError: If the domain is unknown.
    """
    if domain == 'depth':
        return DEPTH
    if domain not in ENCODINGS:
        raise ValueError(f"unknown domain '{domain}': the known ones are {list(ENCODINGS)}")
    return ENCODINGS[domain]


def to_file(domain: str, physical: np.ndarray) -> np.ndarray:
    """Convert physical values ``(H, W, C)`` to stored ones, ``(H, W)`` or ``(H, W, 3)`` RGB.

    Two channels get a third one with the middle value.
    """
    encoding = encoding_of(domain)
    _check_channels(domain, physical, encoding)
    limits = np.iinfo(encoding.dtype)
    stored = (physical.astype(np.float64) - encoding.offset) / encoding.unit
    top = limits.max if encoding.missing is None else encoding.missing - 1
    stored = np.rint(stored).clip(0, top)
    if encoding.missing is not None:
        stored[physical == 0] = encoding.missing
    stored = stored.astype(encoding.dtype)
    if encoding.channels == 2:
        middle = np.full_like(stored[..., :1], limits.max // 2)
        stored = np.concatenate([stored, middle], 2)
    return stored[..., 0] if stored.shape[2] == 1 else stored


def from_file(domain: str, stored: np.ndarray) -> np.ndarray:
    """Convert stored values to physical ones, ``(H, W, C)``.

    Images and classes are uint8, others float32. Single-channel domains may be stored with three
    equal channels; 16-bit domains may not be stored in 8 bits.

    Raises:
        ValueError: If type or number of channels do not fit the domain.
    """
    encoding = encoding_of(domain)
    stored = stored[..., None] if stored.ndim == 2 else stored
    if stored.dtype != encoding.dtype or stored.shape[2] < encoding.channels:
        raise ValueError(
            f"domain '{domain}' is stored as {encoding.dtype} of {encoding.channels} channels or "
            f'more, got {stored.dtype} of shape {stored.shape}'
        )
    stored = stored[..., : encoding.channels]
    if encoding.unit == 1:
        return stored
    physical = (encoding.offset + encoding.unit * stored.astype(np.float64)).astype(np.float32)
    if encoding.missing is not None:
        physical[stored == encoding.missing] = 0
    return physical


def to_image(
    domain: str, physical: np.ndarray, limits: tuple[float, float] | None = None
) -> np.ndarray:
    """Convert physical values ``(H, W, C)`` to an image ``(H, W, 3)`` float32 in 0..255, clipped.

    One channel is repeated, two get a third one with the middle value. Missing depth becomes 0,
    like the nearest depth.

    Args:
        domain: Name of the domain.
        physical: Values with C channels.
        limits: Physical values that become 0 and 255, linearly, instead of those of the domain.
    """
    encoding = encoding_of(domain)
    _check_channels(domain, physical, encoding)
    values = physical.astype(np.float32)
    if limits is not None:
        low, high = limits
    else:
        low, high = encoding.low, encoding.high
        values = np.log1p(values / np.float32(encoding.unit)) if encoding.log else values
    image = ((values - low) * np.float32(255 / (high - low))).clip(0, 255)
    if encoding.channels == 2:
        return np.concatenate([image, np.full_like(image[..., :1], 127.5)], 2)
    return np.repeat(image, 3, 2) if encoding.channels == 1 else image


def to_physical(
    domain: str, image: np.ndarray, limits: tuple[float, float] | None = None
) -> np.ndarray:
    """Convert a predicted image ``(H, W, 3)`` in 0..255 to physical values ``(H, W, C)``.

    Repeated channels are averaged.
    """
    encoding = encoding_of(domain)
    image = image.astype(np.float64)
    image = image.mean(2, keepdims=True) if encoding.channels == 1 else image
    low, high = limits or (encoding.low, encoding.high)
    values = low + image[..., : encoding.channels] * ((high - low) / 255)
    if encoding.log and limits is None:
        values = encoding.unit * np.expm1(values)
    return values.astype(np.float32)


def paint(classes: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Convert a class map ``(H, W, 1)`` to colours ``(H, W, 3)`` float32 in 0..255.

    Void (255) is black.

    Args:
        classes: Class map, uint8.
        palette: Colours, RGB, ``(K, 3)``.

    Raises:
        ValueError: If a class has no colour.
    """
    table = np.zeros((256, 3), np.float32)
    table[: len(palette)] = palette
    top = classes[classes != 255].max(initial=0)
    if top >= len(palette):
        raise ValueError(f'class {top} has no colour, the palette has {len(palette)}: give more')
    return table[classes[..., 0]]


def _check_channels(domain: str, physical: np.ndarray, encoding: Encoding) -> None:
    if physical.ndim != 3 or physical.shape[2] != encoding.channels:
        raise ValueError(
            f"domain '{domain}' has {encoding.channels} channels, got shape {physical.shape}: "
            f'give (H, W, {encoding.channels})'
        )
