"""Find Taskonomy's frames in the extracted files, and group them."""

from __future__ import annotations

import csv
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ..datasets.encodings import CLASSES, ENCODINGS

# a later layout takes precedence over an earlier one that finds the same building
LAYOUTS = ('{0}', '{0}/*', '{0}/taskonomy/*', '*_{0}', '*/{0}')
WRAPPER = 'taskonomy'
FRAME = re.compile(r'(point_\d+_view_\d+)_domain_(\w+)\.png')
COLUMNS = ('train', 'val', 'test')
FLAGS = {'0': False, '1': True, 'false': False, 'true': True}


@dataclass(frozen=True)
class TaskonomyFrame:
    """One frame; ``building`` is empty in a set without."""

    building: str
    stem: str

    @property
    def name(self) -> str:
        return f'{self.building}/{self.stem}' if self.building else self.stem


def domains_there(source: Path) -> list[str]:
    """Return the domains for which there is a folder."""
    if not source.is_dir():
        raise ValueError(f'there is no folder {source}: give that of the extracted files')
    patterns = {domain: [one.format(domain) for one in LAYOUTS] for domain in ENCODINGS}
    there = [d for d in ENCODINGS if any(any(source.glob(p)) for p in patterns[d])]
    if not there:
        raise ValueError(f'{source} has no domain of Taskonomy: see --help for the layouts')
    return there


def find_folders(source: Path, domain: str) -> dict[str, Path]:
    """Return the folders of a domain's files by building."""
    found = {}
    for layout in LAYOUTS:
        for folder in sorted(source.glob(layout.format(domain))):
            if not folder.is_dir() or folder.name == WRAPPER:
                continue
            parts = [p for p in folder.relative_to(source).parts if p not in (domain, WRAPPER)]
            found[parts[0].removesuffix(f'_{domain}') if parts else ''] = folder
    if not found:
        raise ValueError(
            f'{source} has no folder of {domain} in any layout of Taskonomy: see --help, or name '
            'the available domains by --domains'
        )
    return found


def spellings(domain: str) -> list[str]:
    """Return the names of a domain in file names; that of the classes has two."""
    return [domain, domain.replace('_', '')] if domain == CLASSES else [domain]


def find_frames(folders: dict[str, dict[str, Path]]) -> dict[str, set[TaskonomyFrame]]:
    """Frames that there are, by domain.

    Args:
        folders: Folders by domain and building.
    """
    frames: dict[str, set[TaskonomyFrame]] = {}
    for domain, of_domain in folders.items():
        found = frames[domain] = set()
        names = spellings(domain)
        for building, folder in of_domain.items():
            with os.scandir(folder) as entries:
                files = [entry.name for entry in entries if entry.is_file()]
            matches = [match for file in files if (match := FRAME.fullmatch(file))]
            found |= {TaskonomyFrame(building, match[1]) for match in matches if match[2] in names}
    return frames


def find_file(folders: dict[str, Path], domain: str, frame: TaskonomyFrame) -> Path:
    """Return the frame's file of a domain."""
    folder = folders[frame.building]
    files = [folder / f'{frame.stem}_domain_{name}.png' for name in spellings(domain)]
    return next((file for file in files if file.is_file()), files[0])


def read_split(path: Path) -> dict[str, str]:
    """Read the split of each building from the official csv; buildings of no split are left out."""
    with path.open(newline='', encoding='utf-8-sig') as file:
        rows = list(csv.DictReader(file, skipinitialspace=True))
    if not rows or not {'id', *COLUMNS} <= set(rows[0]):
        raise ValueError(f'{path} lacks a column of id, train, val, test: use the official csv')
    splits: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        flags = [FLAGS.get((row[name] or '').strip().lower()) for name in COLUMNS]
        if None in flags or sum(map(bool, flags)) > 1 or row['id'] in splits:
            raise ValueError(
                f'{path}, line {number}: building {row["id"]!r} must be listed once, with 1 in at '
                f'most one of train, val, test, and has {[row[name] for name in COLUMNS]}'
            )
        if any(flags):
            splits[row['id']] = COLUMNS[flags.index(True)]
    return splits


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """Sort names by a hash, so that the order of two names does not depend on others."""
    return sorted(names, key=lambda name: sha256(f'{seed}/{name}'.encode()).digest())


def divide(
    frames: Sequence[TaskonomyFrame], wanted: int, seed: int
) -> dict[str, list[TaskonomyFrame]]:
    """Divide buildings, or points of a single building; validation gets ``wanted`` frames."""
    several = len({frame.building for frame in frames}) > 1
    groups = defaultdict(list)
    for frame in frames:
        groups[frame.building if several else frame.stem.split('_view_')[0]].append(frame)
    pools: dict[str, list[TaskonomyFrame]] = {'train': [], 'val': []}
    for name in shuffled(groups, seed):
        pools['val' if len(pools['val']) < wanted else 'train'] += groups[name]
    return pools
