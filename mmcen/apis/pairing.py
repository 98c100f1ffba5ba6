"""Pair files by the time stamps in their names, or by a list of pairs."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..datasets.multimodal import read_lines
from .names import ModalityNames

EXAMPLE = '1305031102.17 rgb/1305031102.17.png 1305031102.16 depth/1305031102.16.png'


def time_of(name: str) -> float | None:
    """Return the time stamp that a frame's name is, in seconds; None if it is none.

    Whole numbers of 13, 16 and 19 digits are milli-, micro- and nanoseconds since 1970.

    Examples:
        >>> time_of('1305031102.175304'), round(time_of('1403636579763555584'), 3), time_of('room')
        (1305031102.175304, 1403636579.764, None)
    """
    if not re.fullmatch(r'\d+(\.\d+)?', name):
        return None
    return float(name) / {13: 1e3, 16: 1e6, 19: 1e9}.get(len(name) if name.isdigit() else 0, 1)


def nearest(first: Sequence[float], second: Sequence[float], max_gap: float) -> dict[int, int]:
    """Pair times one to one, the smallest gaps first, as TUM RGB-D's ``associate.py``.

    Args:
        first: Times in seconds.
        second: Times in seconds.
        max_gap: Largest gap of a pair, in seconds.

    Returns:
        Index in ``second`` by index in ``first``.

    Examples:
        >>> nearest([0.0, 1.0, 2.0], [0.01, 0.97, 5.0], 0.05)
        {0: 0, 1: 1}
    """
    order = sorted(range(len(second)), key=second.__getitem__)
    times = [second[j] for j in order]
    near = sorted(
        (abs(time - times[k]), i, order[k])
        for i, time in enumerate(first)
        for k in range(bisect_left(times, time - max_gap), bisect_right(times, time + max_gap))
    )
    pairs: dict[int, int] = {}
    taken = set()
    for _, i, j in near:
        if i not in pairs and j not in taken:
            pairs[i] = j
            taken.add(j)
    return dict(sorted(pairs.items()))


def pair_by_time(
    found: Mapping[str, Mapping[str, str]], max_gap: float
) -> dict[str, dict[str, str]]:
    """Pair the files of the first modality with the nearest ones of the others.

    Args:
        found: Files by frame name, for each modality.
        max_gap: Largest gap of a pair, in seconds.

    Returns:
        Files by modality for each frame of the first modality, in the order of time.

    Raises:
        ValueError: If a name is no time stamp, or no file has a partner.
    """
    times = {name: [_time(name, key, files[key]) for key in files] for name, files in found.items()}
    (first, files), *others = found.items()
    frames = {key: {first: files[key]} for key in files}
    for name, own in others:
        keys = list(own)
        pairs = nearest(times[first], times[name], max_gap)
        if not pairs:
            gap = min(abs(a - b) for a in times[first] for b in times[name])
            raise ValueError(
                f"no file of '{name}' is within {max_gap * 1000:g} ms of one of '{first}': the "
                f'smallest gap is {gap * 1000:g} ms, so give a larger --max-gap, or check the '
                'clocks'
            )
        for i, key in enumerate(frames):
            if i in pairs:
                frames[key][name] = own[keys[pairs[i]]]
    order = sorted(zip(times[first], frames, strict=True))
    return {key: frames[key] for _, key in order}


def _time(modality: str, key: str, file: str) -> float:
    time = time_of(key)
    if time is None:
        raise ValueError(
            f"modality '{modality}': the name of {file} is no time stamp in seconds, such as "
            '1305031102.175304.png, by which --pair nearest pairs: rename the files, or pair by '
            'name'
        )
    return time


def read_associations(path: Path, names: ModalityNames) -> list[dict[str, str]]:
    """Read a list of pairs as in TUM RGB-D: lines of time stamps and files, in any order.

    Args:
        path: Text file. Its files are relative to its folder; the folder of a file or its name
            states its modality.
        names: Names of the model's modalities; others are left out.

    Returns:
        Files by modality, for each line.

    Raises:
        FileNotFoundError: If a listed file does not exist.
        ValueError: If a line is something else.
    """
    frames = []
    for line in read_lines(path.read_bytes(), str(path)):
        if line.startswith('#'):
            continue
        words = line.replace(',', ' ').split()
        if len(words) % 2 or any(time_of(word) is None for word in words[::2]):
            raise ValueError(
                f"{path}: '{line}' is no line of time stamps and files: write it as '{EXAMPLE}'"
            )
        frame: dict[str, str] = {}
        for file in words[1::2]:
            place = Path(path.parent, file)
            name = names.of(place.parent.name) or names.split(place.name)[0]
            if name in frame:
                raise ValueError(f"{path}: '{line}' has two files of '{name}': leave one of them")
            if name is not None:
                if not place.is_file():
                    raise FileNotFoundError(f"{path}: '{line}' names {place}, which does not exist")
                frame[name] = str(place)
        if not frame:
            raise ValueError(
                f"{path}: '{line}' has no file in a folder of a modality: the model takes "
                f'{" ".join(names.modalities)}'
            )
        frames.append(frame)
    if not frames:
        raise ValueError(f"{path} lists no frame: write lines as '{EXAMPLE}'")
    return frames
