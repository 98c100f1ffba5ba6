"""A user's own files: one frame, or folders matched by name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

Given = str | os.PathLike | np.ndarray | Image.Image | Tensor
SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.npy', '.webp')


@dataclass(frozen=True)
class Frame:
    """Aligned modalities of one frame.

    Args:
        name: Name of its predictions.
        files: Path or array of each modality that is present, in the order of the model. Arrays are
            as they would be stored: colour (H, W, 3) uint8 RGB, depth (H, W).
    """

    name: str
    files: Mapping[str, str | np.ndarray]


def find_frames(
    inputs: Mapping[str, Given] | Sequence[Mapping[str, Given]],
    modalities: Sequence[str],
    skip_incomplete: bool = False,
) -> list[Frame]:
    """Find the frames in a user's inputs.

    Args:
        inputs: A file, an array or a folder for each modality that is present; or a list of frames
            of files or arrays. A picture of Pillow, or a tensor (C, H, W) or (H, W), serves as an
            array. Files of folders are matched by name, without suffix and without the name of the
            modality: ``rgb/001.jpg`` and ``depth/001.png``, ``a_rgb.png`` and ``a_depth.png``. A
            frame has the modalities for which there is a file, at least one.
        modalities: Modalities that the model takes; others are rejected.
        skip_incomplete: Whether to skip frames for which a folder has no file.

    Raises:
        FileNotFoundError: If a file or folder does not exist, or a folder has no frame.
        TypeError: If ``inputs`` is something else.
        ValueError: If there is no modality or an unknown one, files and folders are mixed, or no
            frame is in all folders.
    """
    if not isinstance(inputs, Mapping):
        if not isinstance(inputs, (list, tuple)) or not all(isinstance(o, Mapping) for o in inputs):
            example = ', '.join(f'{name}=...' for name in modalities)
            raise TypeError(
                f'inputs are a {type(inputs).__name__}: give a dict of files, folders or arrays by '
                f'modality, dict({example}), or a list of such dicts'
            )
        if not inputs:
            raise ValueError('inputs are an empty list: give one frame at least')
        frames = [_frame(one, modalities, str(i)) for i, one in enumerate(inputs)]
        return _with_names_of_their_own(frames)
    _check_names(inputs, modalities)
    places = {name: _as_stored(name, value) for name, value in inputs.items()}
    for name, place in places.items():
        if not isinstance(place, np.ndarray) and not Path(place).exists():
            raise FileNotFoundError(f"modality '{name}': there is no file or folder {place}")
    folders = {
        name: Path(place)
        for name, place in places.items()
        if not isinstance(place, np.ndarray) and Path(place).is_dir()
    }
    if not folders:
        return [_frame(places, modalities, '0')]
    if len(folders) < len(places):
        files = [name for name in places if name not in folders]
        raise ValueError(f'{list(folders)} are folders and {files} are not: give one kind for all')
    return _matched({n: folders[n] for n in modalities if n in folders}, skip_incomplete)


def _check_names(given: Mapping[str, Given], modalities: Sequence[str]) -> None:
    wanted = ' '.join(f'{name}=...' for name in modalities)
    unknown = [name for name in given if name not in modalities]
    if unknown:
        raise ValueError(f"modality '{unknown[0]}' is none of the model: the model takes {wanted}")
    if not given:
        raise ValueError(f'no modality is given: the model takes any of {wanted}')


def _frame(given: Mapping[str, Given], modalities: Sequence[str], number: str) -> Frame:
    _check_names(given, modalities)
    files: dict[str, str | np.ndarray] = {}
    for name in (name for name in modalities if name in given):
        value = _as_stored(name, given[name])
        if not isinstance(value, np.ndarray) and not Path(value).is_file():
            raise FileNotFoundError(f"modality '{name}': there is no file {value}")
        files[name] = value
    first = next(iter(files.values()))
    return Frame(number if isinstance(first, np.ndarray) else Path(first).stem, files)


def _as_stored(name: str, value: Any) -> str | np.ndarray:
    """A path, or an array as it would be stored: channels last."""
    if isinstance(value, Image.Image):
        return np.array(value.convert('RGB') if value.mode in ('P', 'CMYK') else value)
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
        return value.permute(1, 2, 0).numpy() if value.ndim == 3 else value.numpy()
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(
            f"modality '{name}' is a {type(value).__name__}: give a file, a folder, an array, a "
            'picture of Pillow or a tensor (C, H, W)'
        )
    return os.fspath(value)


def _with_names_of_their_own(frames: list[Frame]) -> list[Frame]:
    """Append numbers to names that occur several times."""
    names = [frame.name for frame in frames]
    return [
        Frame(f'{frame.name}_{i}', frame.files) if names.count(frame.name) > 1 else frame
        for i, frame in enumerate(frames)
    ]


def _matched(folders: dict[str, Path], skip_incomplete: bool) -> list[Frame]:
    found: dict[str, dict[str, str]] = {}
    for name, folder in folders.items():
        files: dict[str, str] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in SUFFIXES:
                key = _key(path.stem, name)
                if key in files:
                    raise ValueError(
                        f"modality '{name}': {files[key]} and {path} are both frame '{key}': "
                        'leave one of them in the folder'
                    )
                files[key] = str(path)
        if not files:
            raise FileNotFoundError(
                f"modality '{name}': {folder} has no picture: looked for {', '.join(SUFFIXES)}"
            )
        found[name] = files
    every = sorted(set().union(*found.values()))
    complete = [key for key in every if all(key in files for files in found.values())]
    if not complete:
        key = every[0]
        missing = [name for name, files in found.items() if key not in files]
        raise ValueError(
            f"none of {len(every)} frames is in all folders, the first is '{key}', which {missing} "
            'lack: files belong together by name; give them equal names, or one folder alone'
        )
    return [
        Frame(key, {name: files[key] for name, files in found.items() if key in files})
        for key in (complete if skip_incomplete else every)
    ]


def _key(stem: str, modality: str) -> str:
    for end in (f'_domain_{modality}', f'_{modality}', f'-{modality}'):
        if stem.endswith(end):
            return stem[: -len(end)]
    return stem
