"""Recognise modalities by the names that people give to files and folders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from mmengine.logging import print_log

from ..modalities import ModalitySpec

ALIASES = {'rgb': ('color', 'colour', 'image'), 'depth': ('d',)}
SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.npy', '.webp')


class ModalityNames:
    """Names under which a model's modalities are accepted.

    These are the modality's own name, its folder in the config, and usual other names
    (:data:`ALIASES`). Upper and lower case are equal.

    Args:
        modalities: Modalities that the model takes.
        specs: Their specifications, as far as there are any.
    """

    def __init__(
        self, modalities: Sequence[str], specs: Mapping[str, ModalitySpec] | None = None
    ) -> None:
        self.modalities = list(modalities)
        self.specs = {name: (specs or {}).get(name, ModalitySpec(name)) for name in modalities}
        folders = {name: PurePath(spec.dir or '').name for name, spec in self.specs.items()}
        words = [(name, name) for name in modalities]
        words += [(word, name) for name in modalities for word in ALIASES.get(name, ())]
        # a folder of several modalities names none of them
        words += [(w, n) for n, w in folders.items() if w and [*folders.values()].count(w) == 1]
        self.words: dict[str, str] = {}
        for word, name in words:
            self.words.setdefault(word.lower(), name)
        longest = '|'.join(map(re.escape, sorted(self.words, key=len, reverse=True)))
        self._last = re.compile(rf'(.+?)[-_. ](?:domain_)?({longest})', re.IGNORECASE)
        # a single letter needs a separator: d41d8.png is a frame's own name
        self._first = re.compile(rf'({longest})(?:[-_. ]+|(?<=\w\w)(?=\d))(.+)', re.IGNORECASE)
        self._told: set[str] = set()

    def of(self, word: str) -> str | None:
        """Return the modality that a word names, if any."""
        return self.words.get(word.lower())

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Replace accepted names by those of the model, and say so in a line.

        Raises:
            ValueError: If there is no modality, or an unknown or a repeated one.
        """
        wanted = ' '.join(f'{name}=...' for name in self.modalities)
        if not given:
            raise ValueError(f'no modality is given: the model takes any of {wanted}')
        resolved: dict[str, Any] = {}
        for word, value in given.items():
            name = word if word in self.modalities else self.of(word)
            if name is None and word.lower() == 'disparity' and self.of('depth'):
                raise ValueError(
                    f"modality '{word}' is none of the model: disparity is in pixels, and the "
                    'model takes depth. Convert it, depth = focal length in pixels * baseline in '
                    'metres / disparity, and give it as depth=...'
                )
            if name is None:
                raise ValueError(
                    f"modality '{word}' is none of the model: the model takes {wanted}"
                )
            if name in resolved:
                raise ValueError(f"modality '{name}' is given twice, also as '{word}': give one")
            if name != word and word not in self._told:
                self._told.add(word)
                print_log(f"'{word}' is taken as '{name}'")
            resolved[name] = value
        return resolved

    def is_picture(self, file: str) -> bool:
        """Return whether a file has a known suffix or one that the config states."""
        stated = tuple(suffix for spec in self.specs.values() for suffix in spec.suffix)
        return Path(file).suffix.lower() in SUFFIXES or file.endswith(stated)

    def split(self, file: str) -> tuple[str | None, str]:
        """Return the modality that a file name states, and the name of the frame.

        A suffix of the config such as ``_rgb.png`` comes first, then words at the end
        (``a_depth.png``) or the start (``color_0001.png``). The frame of ``depth.png`` is ``''``;
        a single letter such as ``d.png`` is the name of a frame.

        Examples:
            >>> names = ModalityNames(['rgb', 'depth'])
            >>> names.split('color_0001.png'), names.split('room-depth.npy'), names.split('7.png')
            (('rgb', '0001'), ('depth', 'room'), (None, '7'))
        """
        stated = [
            (len(suffix), name)
            for name in self.modalities
            for suffix in self.stated(name)
            if file.endswith(suffix)
        ]
        length = max(stated, default=(0, ''))[0]
        owners = {name for one, name in stated if one == length}
        if owners:
            return owners.pop() if len(owners) == 1 else None, file[:-length]
        stem = Path(file).stem
        if match := self._last.fullmatch(stem):
            return self.of(match[2]), match[1]
        if match := self._first.fullmatch(stem):
            return self.of(match[1]), match[2]
        name = self.of(stem) if len(stem) > 1 else None
        return name, '' if name else stem

    def stated(self, name: str) -> list[str]:
        """Return the suffixes of a modality in the config that are more than a file type."""
        return [suffix for suffix in self.specs[name].suffix if Path(f'x{suffix}').stem != 'x']
