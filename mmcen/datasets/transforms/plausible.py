"""Warnings about files that can be read but have implausible values."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from functools import cache

import numpy as np

NEAREST, FARTHEST = 0.1, 100.0  # plausible range of the median depth of a frame, in metres
MISSING = 0.95  # implausible share of a frame without depth


class ImplausibleWarning(UserWarning, ValueError):
    """A file has implausible values.

    ``warnings.simplefilter('error', ImplausibleWarning)`` makes it an error, as ``--strict`` on the
    command line does.
    """


def check_depth(depth: np.ndarray, path: str) -> None:
    """Warn once for each folder if depth is not in metres, or almost all of it is missing.

    Args:
        depth: (H, W) in metres, 0 where nothing was measured.
        path: Name of the file in the warning.
    """
    sample = depth[::8, ::8]  # a few thousand values are enough
    measured = sample[sample > 0]
    missing = 1 - measured.size / sample.size
    if missing > MISSING and depth.any():  # of none at all check_content warns
        _doubt(
            os.path.dirname(path),
            'missing',
            f'{path} has no depth in {missing:.0%} of its pixels: check that it is depth, and '
            'what stands for not measured (0 or NaN)',
        )
    elif measured.size and not NEAREST <= (median := float(np.median(measured))) <= FARTHEST:
        _doubt(
            os.path.dirname(path),
            'unit',
            f'{path} has a median depth of {median:.4g} m, not within {NEAREST:g} to '
            f'{FARTHEST:g}: correct the unit of the modality, or predict with --depth-unit',
        )


def check_bits(dtype: str, unit: object, path: str) -> None:
    """Warn once for each folder if depth has 8 bits, and its unit is not stated for them.

    Args:
        dtype: Type of the stored numbers.
        unit: Unit of the modality; a dict states one for each type.
        path: File, for the text.
    """
    if dtype == 'uint8' and not isinstance(unit, Mapping):
        _doubt(
            os.path.dirname(path),
            'bits',
            f'{path} is depth of 8 bits, of which there are 256 values: store 16 bits, or state '
            f'unit=dict(uint8={unit!r})',
        )


def check_colour(channels: int, path: str) -> None:
    """Warn once for each folder if one channel is given as colour."""
    if channels < 3:
        _doubt(
            os.path.dirname(path),
            'grey',
            f'{path} has one channel, but its modality is colour: it is taken as grey; check that '
            'it is not 8-bit depth',
        )


def has_content(array: np.ndarray, path: str) -> bool:
    """Return whether a modality has content; warn once for each folder if it has none.

    Args:
        array: (H, W, C). It has no content if in each channel all finite values are equal.
        path: File, for the text.
    """
    part = array[::8, ::8]
    if _varies(part) or _varies(array):  # a few thousand values mostly say enough
        return True
    values = ', '.join(f'{value:g}' for value in array[0, 0])
    _doubt(
        os.path.dirname(path),
        'empty',
        f'{path} has no content, all its pixels are {values}: check the sensor; the modality '
        'can be treated as absent (--treat-empty absent)',
    )
    return False


def _varies(array: np.ndarray) -> bool:
    """Return whether a channel has different finite values."""
    for channel in np.moveaxis(array, -1, 0):
        finite = channel[np.isfinite(channel)] if channel.dtype.kind == 'f' else channel
        if finite.size and finite.min() < finite.max():
            return True
    return False


def _doubt(source: str, rule: str, text: str) -> None:
    """Warn about the first file of a source; if warnings are errors, about every file."""
    told = _told(source, rule)
    if not told:
        warnings.warn(text, ImplausibleWarning, stacklevel=4)
        told.append(text)


@cache
def _told(source: str, rule: str) -> list[str]:
    """Return the warnings about a source; the cache keeps the list until the process ends."""
    return []
