"""Draw lists of frames from extracted Taskonomy files, and link the files for TaskonomyDataset.

Finds the frames in any layout of Taskonomy,

    SOURCE/{domain}/point_{p}_view_{v}_domain_{domain}.png       the official sample set
    SOURCE/{building}/{domain}/point_...                         tars of one building together
    SOURCE/{building}_{domain}/point_...                         tars one by one
    SOURCE/{building}_{domain}/{domain}/point_...
    SOURCE/{domain}/{building}/point_...                         as TaskonomyDataset reads it
    SOURCE/{domain}/taskonomy/{building}/point_...               the omnidata tools

draws the paper's 1,000 training and 500 validation frames, and 15,000 training frames (its
appendix, which include the 1,000), from the frames that have all domains, checks all their files,
and writes

    OUT/splits/train.txt, val.txt, train_15000.txt   and test.txt, if there is a split of buildings
    OUT/{domain}/{building}/point_...                links to the files, unless they are there
    OUT/source.json                                  seed, domains and numbers of the draw

Frames are drawn in the order of a hash of the seed and their names, so the same files and seed give
the same lists. Some official files are damaged: their frames are replaced by the next ones, and
listed in source.json. There is no list of 15,000 if there are fewer frames, as in the sample set of
one building, about 9,460 frames.

With --split-csv, the official train_val_test_*.csv (columns id, train, val, test) assigns buildings
to splits. Without it, no building has frames in two lists; with a single building, no point has.
The paper's own lists were not published. It can be interrupted at any time; the same command
continues.

Examples:
    mmcen convert-data taskonomy downloads --split-csv train_val_test_tiny.csv
    mmcen convert-data taskonomy sample
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from ..datasets import LoadModalities, TaskonomyDataset
from ..datasets.encodings import ENCODINGS
from ..files import write
from ..modalities import ModalitySpec
from .common import command_parser, lists_in, made_from, make_folders, run_all
from .taskonomy_frames import (
    COLUMNS,
    TaskonomyFrame,
    divide,
    domains_there,
    find_file,
    find_folders,
    find_frames,
    read_split,
    shuffled,
)


@dataclass(frozen=True)
class TaskonomyJob:
    """Facts that checking and linking a frame needs."""

    out: Path
    folders: dict[str, dict[str, Path]]  # by domain, by building

    def link(self, domain: str, frame: TaskonomyFrame) -> Path:
        """Return the path of a file for TaskonomyDataset."""
        return self.out / domain / f'{frame.name}_domain_{domain}.png'

    def finished(self, frame: TaskonomyFrame) -> bool:
        """Whether an earlier run has checked the frame, i.e. all its links exist."""
        links = [self.link(domain, frame) for domain in self.folders]
        return all(link.is_symlink() and link.exists() for link in links)


def make_pools(
    frames: Sequence[TaskonomyFrame], args: argparse.Namespace
) -> dict[str, list[TaskonomyFrame]]:
    """Return the frames from which each split is drawn."""
    if args.split_csv is None:
        return divide(frames, args.val, args.seed)
    splits = read_split(args.split_csv)
    pools: dict[str, list[TaskonomyFrame]] = {name: [] for name in COLUMNS}
    for frame in frames:
        if frame.building in splits:
            pools[splits[frame.building]].append(frame)
    if not any(pools.values()):
        raise ValueError(f'{args.split_csv} has none of the buildings in {args.source}')
    return pools


def draw(
    pools: dict[str, list[TaskonomyFrame]], args: argparse.Namespace
) -> tuple[dict[str, list[TaskonomyFrame]], list[str]]:
    """Return the lists by file name, and messages about missing lists.

    The paper's tables do not need the missing ones.
    """
    wanted = {
        'train': ('train', args.train),
        'val': ('val', args.val),
        'test': ('test', args.test if 'test' in pools else 0),
        f'train_{args.large}': ('train', args.large),
    }
    lists, left_out = {}, []
    for name, (pool, count) in wanted.items():
        by_name = {frame.name: frame for frame in pools.get(pool, ())}
        if len(by_name) >= count > 0:
            lists[name] = [by_name[key] for key in shuffled(by_name, args.seed)[:count]]
        elif name in ('train', 'val'):
            raise ValueError(
                f'{name} needs {count} frames, but {args.source} has {len(by_name)} for it: '
                f'fetch more buildings, or give --{name}'
            )
        elif count:
            left_out.append(f'no {name}.txt: there are {len(by_name)} frames of {count}')
    return lists, left_out


def place(job: TaskonomyJob, frame: TaskonomyFrame) -> str:
    """Read a frame's files as in training and link them; return an error, or ''."""
    files = {domain: find_file(folders, domain, frame) for domain, folders in job.folders.items()}
    info = {name: ModalitySpec(name, **TaskonomyDataset.MODALITIES[name]) for name in files}
    paths = {domain: str(file) for domain, file in files.items()}
    try:
        LoadModalities()({'modality_paths': paths, 'modality_info': info})
    except (FileNotFoundError, ValueError) as error:
        return str(error)
    for domain, file in files.items():
        make_link(job.link(domain, frame), file)
    return ''


def draw_and_place(
    job: TaskonomyJob,
    frames: Sequence[TaskonomyFrame],
    bad: dict[str, str],
    args: argparse.Namespace,
    console: Console,
) -> dict[str, list[TaskonomyFrame]]:
    """The lists, of frames that are checked and linked. In the official tars some files are
    damaged: their frames give way to the next ones of the order.

    Args:
        job: Facts for checking.
        frames: All frames.
        bad: Errors by name of the frame; new ones are added.
        args: Command line.
        console: Console for messages.
    """
    while True:
        good = [frame for frame in frames if frame.name not in bad]
        lists, left_out = draw(make_pools(good, args), args)
        chosen = list(dict.fromkeys(frame for of_list in lists.values() for frame in of_list))
        left = [frame for frame in chosen if not job.finished(frame)]
        console.print(
            f'{len(chosen)} frames are drawn, {len(chosen) - len(left)} are finished already'
        )
        faults = run_all(ThreadPoolExecutor(args.workers), partial(place, job), left, console)
        new = {frame.name: fault for frame, fault in zip(left, faults, strict=True) if fault}
        if not new:
            break
        bad |= new
        console.print(
            f'{len(new)} of them are replaced by others, the first: {next(iter(new.values()))}'
        )
    for line in left_out:
        console.print(line)
    return lists


def make_link(link: Path, file: Path) -> None:
    """Make a relative symbolic link atomically, unless the file or a link exists."""
    if link.exists() and link.samefile(file):
        return
    if link.exists() and not link.is_symlink():
        raise ValueError(f'{link} is a file of another set: choose another --out')
    link.parent.mkdir(parents=True, exist_ok=True)
    part = link.with_name(f'.{link.name}.part')
    part.unlink(missing_ok=True)
    part.symlink_to(os.path.relpath(file.resolve(), link.parent.resolve()))
    os.replace(part, link)


def links_in(job: TaskonomyJob) -> list[Path]:
    """Return the links in the folder that are not part of the source."""
    own = {folder.resolve() for of in job.folders.values() for folder in of.values()}
    links = (path for domain in job.folders for path in (job.out / domain).rglob('*.png'))
    return [path for path in links if path.is_symlink() and path.parent.resolve() not in own]


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser('taskonomy', __doc__)
    add = parser.add_argument
    add('source', type=Path, help='folder of the extracted files')
    add('--out', type=Path, default=Path('data/taskonomy'), help='default: %(default)s')
    add('--split-csv', type=Path, help='official train_val_test_*.csv')
    add(
        '--domains', nargs='+', choices=ENCODINGS, metavar='DOMAIN',
        help=f'domains that a frame must have, of {", ".join(ENCODINGS)}; default: all found',
    )  # fmt: skip
    add('--seed', type=int, default=0, help='default: %(default)s')
    counts = {'train': 1000, 'val': 500, 'test': 500, 'large': 15000}
    for name, count in counts.items():
        add(f'--{name}', type=int, default=count, help='number of frames, default: %(default)s')
    add('--workers', type=int, default=min(8, os.cpu_count() or 1))
    add('--overwrite', action='store_true', help='draw and check existing lists again')
    args = parser.parse_args(argv)
    for name, least in {'train': 1, 'val': 1, 'test': 0, 'large': 0, 'workers': 1}.items():
        if getattr(args, name) < least:
            parser.error(f'--{name} {getattr(args, name)} is below {least}')
    return args


def run(args: argparse.Namespace, console: Console) -> None:
    names = list(dict.fromkeys(args.domains or domains_there(args.source)))
    job = TaskonomyJob(args.out, {name: find_folders(args.source, name) for name in names})
    there = find_frames(job.folders)
    frames = sorted(set.intersection(*there.values()), key=lambda frame: frame.name)
    if any(len(of_domain) > len(frames) for of_domain in there.values()):
        counts = ', '.join(f'{len(of_domain)} {domain}' for domain, of_domain in there.items())
        console.print(f'{len(frames)} frames have all domains, of {counts}')
    pools = make_pools(frames, args)
    settings = {
        'source': str(args.source.resolve()),
        'seed': args.seed,
        'split_csv': args.split_csv and args.split_csv.name,
        'domains': list(job.folders),
        'wanted': [args.train, args.val, args.test, args.large],
        'from': {
            name: f'{len(pool)} frames of {len({frame.building for frame in pool})} buildings'
            for name, pool in pools.items()
        },
    }
    make_folders(job.out, (*job.folders, 'splits'))
    links = links_in(job) if args.overwrite else ()
    with made_from(args.out, settings, lists_in(args.out), args.overwrite, links) as note:
        lists = draw_and_place(job, frames, note.setdefault('unreadable', {}), args, console)
        note['drawn'] = {name: len(of_list) for name, of_list in lists.items()}
        for name, of_list in lists.items():  # last: they mark the set as complete
            lines = ''.join(f'{frame.name}\n' for frame in of_list)
            write(args.out / 'splits' / f'{name}.txt', lines)
    counts = ', '.join(f'{len(of_list)} {name}' for name, of_list in lists.items())
    used = {frame for of_list in lists.values() for frame in of_list}
    console.print(f'{counts}: {len(job.folders)} domains of {len(used)} frames in {args.out}')


def main(argv: Sequence[str] | None = None) -> None:
    run(parse_args(argv), Console(highlight=False, soft_wrap=True))
