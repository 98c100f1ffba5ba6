"""A user's own files: one frame, folders, or lists of pairs."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ..modalities import ModalitySpec
from .names import SUFFIXES, ModalityNames
from .pairing import pair_by_time, read_associations, time_of

Given = str | os.PathLike | np.ndarray | Image.Image | Tensor


@dataclass(frozen=True)
class Frame:
    """Aligned modalities of one frame.

    Args:
        name: Name of its predictions.
        files: Path or array of each modality that is present, in the order of the model, or a
            function that returns the array. Arrays are as they would be stored: colour (H, W, 3)
            uint8 RGB, depth (H, W).
        origins: Path of the video or recording that an array is from, by modality.
    """

    name: str
    files: Mapping[str, str | np.ndarray | Callable[[], np.ndarray]]
    origins: Mapping[str, str] = field(default_factory=dict)

    def read(self) -> Frame:
        """Return the frame with arrays in the place of functions."""
        origins = {n: f.path for n, f in self.files.items() if hasattr(f, 'path')}
        files = {n: f() if callable(f) else f for n, f in self.files.items()}
        return Frame(self.name, files, {**self.origins, **origins})

    def paths(self) -> list[str]:
        """Return the files that the frame is read from."""
        files = [getattr(file, 'path', file) for file in self.files.values()]
        return [file for file in files if isinstance(file, str)]


def find_frames(
    inputs: str | os.PathLike | Mapping[str, Given] | Sequence[Mapping[str, Given]],
    modalities: Sequence[str],
    skip_incomplete: bool = False,
    specs: Mapping[str, ModalitySpec] | None = None,
    max_gap: float | None = None,
) -> list[Frame]:
    """Find the frames in a user's inputs.

    Files of folders are matched by name, without suffix and without the name of the modality:
    ``rgb/001.jpg`` and ``depth/001.png``, ``a_rgb.png`` and ``a_depth.png``, ``color_1.png`` and
    ``depth_1.png``. One folder may hold the files of several modalities if their names say which.
    A frame has the modalities for which there is a file, at least one.

    Args:
        inputs: A file, an array or a folder for each modality that is present; or a list of frames
            of files or arrays; or one folder with the modalities' folders or files; or a text
            file that lists pairs, such as TUM RGB-D's ``associations.txt``. A picture of Pillow, or
            a tensor (C, H, W) or (H, W), serves as an array. Colour is RGB.
        modalities: Modalities that the model takes; others are rejected.
        skip_incomplete: Whether to skip frames for which a folder has no file.
        specs: Folders and suffixes of the modalities, as the config states them.
        max_gap: Pair files of folders by the time stamps in their names, at most so many seconds
            apart; None pairs by name.

    Raises:
        FileNotFoundError: If a file or folder does not exist, or a folder has no frame.
        TypeError: If ``inputs`` is something else.
        ValueError: If there is no modality or an unknown one, files and folders are mixed, or no
            frame of a folder is in another one.
    """
    names = ModalityNames(modalities, specs)
    matching = _Matching(names, skip_incomplete, max_gap)
    if isinstance(inputs, (str, os.PathLike)):
        return matching.in_place(Path(_path(inputs)))
    if not isinstance(inputs, Mapping):
        if not isinstance(inputs, (list, tuple)) or not all(isinstance(o, Mapping) for o in inputs):
            example = ', '.join(f'{name}=...' for name in modalities)
            raise TypeError(
                f'inputs are a {type(inputs).__name__}: give a dict of files, folders or arrays by '
                f'modality, dict({example}), or a list of such dicts'
            )
        if not inputs:
            raise ValueError('inputs are an empty list: give one frame at least')
        return _with_names_of_their_own([_frame(o, names, str(i)) for i, o in enumerate(inputs)])
    places = {name: _as_stored(name, value) for name, value in names.resolve(inputs).items()}
    for name, place in places.items():
        if not isinstance(place, np.ndarray) and not Path(place).exists():
            raise FileNotFoundError(f"modality '{name}': there is no file or folder {place}")
    folders = {
        name: Path(place)
        for name, place in places.items()
        if not isinstance(place, np.ndarray) and Path(place).is_dir()
    }
    if len(folders) == len(places):
        return matching.of_folders({n: folders[n] for n in modalities if n in folders})
    if folders:
        files = [name for name in places if name not in folders]
        raise ValueError(f'{list(folders)} are folders and {files} are not: give one kind for all')
    check_no_gap(max_gap)
    return [_frame(places, names, '0')]


def check_no_gap(max_gap: float | None) -> None:
    """Raise ValueError if what is no folder is to be paired by time stamps."""
    if max_gap is not None:
        raise ValueError(
            'max_gap (--pair nearest) pairs the files of folders: give folders, or leave it out'
        )


def _frame(given: Mapping[str, Given], names: ModalityNames, number: str) -> Frame:
    given = names.resolve(given)
    files: dict[str, str | np.ndarray] = {}
    for name in (name for name in names.modalities if name in given):
        value = _as_stored(name, given[name])
        if not isinstance(value, np.ndarray) and not Path(value).is_file():
            raise FileNotFoundError(f"modality '{name}': there is no file {value}")
        files[name] = value
    first = next(iter(files.values()))
    return Frame(number if isinstance(first, np.ndarray) else Path(first).stem, files)


def _path(value: str | os.PathLike, whose: str = 'inputs') -> str:
    if not os.fspath(value):
        raise ValueError(f'{whose}: the path is empty: name a file or folder')
    return os.fspath(value)


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
    return _path(value, f"modality '{name}'")


def _with_names_of_their_own(frames: list[Frame]) -> list[Frame]:
    """Append numbers to names that occur several times."""
    count = Counter(frame.name for frame in frames)
    return [
        Frame(f'{frame.name}_{i}', frame.files) if count[frame.name] > 1 else frame
        for i, frame in enumerate(frames)
    ]


@dataclass
class _Matching:
    """Finds the files of frames in folders."""

    names: ModalityNames
    skip_incomplete: bool
    max_gap: float | None

    def in_place(self, place: Path) -> list[Frame]:
        """Frames of one folder with all modalities, or of a list of pairs."""
        if place.is_dir():
            return self.of_folders(self._folders_in(place), optional=True)
        check_no_gap(self.max_gap)
        if place.suffix.lower() == '.txt' and place.is_file():
            listed = read_associations(place, self.names)
            frames = [_frame(one, self.names, '') for one in listed]
            return _with_names_of_their_own(self._complete(frames))
        what = 'is no folder or list of pairs' if place.exists() else 'does not exist'
        raise ValueError(
            f"'{place}' is not MODALITY=FILE, such as rgb=a.png, and {what}: give a file or folder "
            f'for each of {" ".join(self.names.modalities)}'
        )

    def _folders_in(self, place: Path) -> dict[str, Path]:
        """The modalities' folders in a folder, by the config or by name, or else itself."""
        found: dict[str, Path] = {}
        inside = sorted(path for path in place.iterdir() if path.is_dir())
        for name, spec in self.names.specs.items():
            # a folder outside is one of the data of the training, not of the user
            configured = place / (spec.dir or '')
            own = [configured] if _is_within(configured, place) else []
            own += [path for path in inside if self.names.of(path.name) == name]
            if there := [path for path in own if path.is_dir()]:
                found[name] = there[0]
        if not found and not any(self.names.is_picture(path.name) for path in place.iterdir()):
            raise FileNotFoundError(
                f'{place} has no picture, and no folder named as one of the modalities '
                f'{" ".join(self.names.modalities)}: give MODALITY=FOLDER for each'
            )
        return found or dict.fromkeys(self.names.modalities, place)

    def of_folders(self, folders: Mapping[str, Path], optional: bool = False) -> list[Frame]:
        """Match the files of folders, each for one modality or for several.

        Args:
            folders: Folder of each modality, in the order of the model.
            optional: Whether modalities without a file are absent, instead of an error.
        """
        found = {name: self._files(name, folder, folders) for name, folder in folders.items()}
        if optional and any(found.values()):
            found = {name: files for name, files in found.items() if files}
        for name in (name for name, files in found.items() if not files):
            self._fail_for_none(name, folders)
        if self.max_gap is not None:
            by_key = pair_by_time(found, self.max_gap)
        else:
            self._check_match(found)
            every = sorted(set().union(*found.values()), key=_by_number)
            by_key = {key: {n: fs[key] for n, fs in found.items() if key in fs} for key in every}
        frames = [Frame(key, files) for key, files in by_key.items()]
        return self._complete(frames)

    def _complete(self, frames: list[Frame]) -> list[Frame]:
        """All frames, or only those that have as many modalities as any."""
        most = max(len(frame.files) for frame in frames)
        return [f for f in frames if not self.skip_incomplete or len(f.files) == most]

    def _files(self, name: str, folder: Path, folders: Mapping[str, Path]) -> dict[str, str]:
        """Files of a modality in a folder, by frame."""
        pictures = [p for p in sorted(folder.iterdir()) if self.names.is_picture(p.name)]
        split = {path: self.names.split(path.name) for path in pictures}
        mine = [path for path in pictures if split[path][0] == name]
        sharing = [n for n, other in folders.items() if other.resolve() == folder.resolve()]
        if len(sharing) > 1:
            mine = mine or self._of_type(name, sharing, [p for p in pictures if not split[p][0]])
        elif stated := [p for p in mine if p.name.endswith(tuple(self.names.stated(name)))]:
            mine = stated  # as the data set of the config finds them
        elif mine:  # the folder may have files of other modalities, which is known by their names
            mine = [path for path in pictures if split[path][0] in (name, None)]
        else:
            mine = pictures
        files: dict[str, list[Path]] = {}
        for path in mine:
            files.setdefault(split[path][1] or folder.resolve().name, []).append(path)
        return {key: str(self._one_of(name, key, paths)) for key, paths in files.items()}

    def _of_type(self, name: str, sharing: Sequence[str], pictures: list[Path]) -> list[Path]:
        """Pictures of a file type that the config states for one of the modalities alone."""
        types = {n: {s for s in self.names.specs[n].suffix if Path(f'x{s}').stem == 'x'}
                 for n in sharing}  # fmt: skip
        others = set().union(*(types[n] for n in sharing if n != name))
        return [path for path in pictures if path.suffix in types[name] - others]

    def _one_of(self, name: str, key: str, paths: list[Path]) -> Path:
        """The file of a frame; of several, the one that the config would find."""
        stated = [p for p in paths if p.name.endswith(tuple(self.names.specs[name].suffix))]
        if len(paths) > 1 and len(stated) != 1:
            raise ValueError(
                f"modality '{name}': {paths[0]} and {paths[1]} are both frame '{key}': leave one "
                'of them in the folder'
            )
        return stated[0] if len(paths) > 1 else paths[0]

    def _fail_for_none(self, name: str, folders: Mapping[str, Path]) -> None:
        folder = folders[name]
        if not any(self.names.is_picture(path.name) for path in folder.iterdir()):
            raise FileNotFoundError(
                f"modality '{name}': {folder} has no picture: looked for {', '.join(SUFFIXES)}; "
                f'without {name} leave this folder out'
            )
        raise ValueError(
            f"modality '{name}': {folder} is the folder of several modalities, and no name of a "
            f'file says {name}: name the files {name}_0001.png or 0001_{name}.png, state suffixes '
            'in the config, or give a folder for each modality'
        )

    def _check_match(self, found: Mapping[str, Mapping[str, str]]) -> None:
        for name, files in found.items():
            others = set().union(*(own for other, own in found.items() if other != name))
            if not others or not others.isdisjoint(files):
                continue
            first, second = (min(keys, key=_by_number) for keys in (files, others))
            timed = all(time_of(key) is not None and '.' in key for key in (*files, *others))
            raise ValueError(
                f"no frame of '{name}' is in another folder, its first one is '{first}', theirs "
                f"'{second}': files belong together by name; "
                + ('the names are time stamps, so add --pair nearest, or ' if timed else '')
                + 'give them equal names, or one folder alone'
            )


def _is_within(path: Path, folder: Path) -> bool:
    """Return whether a path leads into a folder, by its name: links in the folder may lead out."""
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


def _by_number(name: str) -> list[tuple[int, str]]:
    """Sort key by which 2 comes before 10."""
    return [(int(part) if part.isdigit() else 0, part) for part in re.split(r'(\d+)', name)]
