"""Shared parts of dataset converters: options, the output folder, progress."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from ..files import write

OVERWRITING = 'overwriting'  # in source.json, until the end of it


def command_parser(name: str, doc: str | None) -> ArgumentParser:
    """Make the parser of ``mmcen convert-data NAME``."""
    return ArgumentParser(
        prog=f'mmcen convert-data {name}',
        description=doc,
        formatter_class=RawDescriptionHelpFormatter,
    )


def converter_parser(
    name: str, doc: str | None, out: str, counts: Mapping[str, int]
) -> ArgumentParser:
    """Make a parser with the options that all converters of official archives share.

    Args:
        name: Name of the converter.
        doc: Description in ``--help``.
        out: Default of ``--out``.
        counts: Number of frames of each official split.
    """
    parser = command_parser(name, doc)
    add = parser.add_argument
    add('--out', type=Path, default=Path(out), help='default: %(default)s')
    add('--workers', type=int, default=min(8, os.cpu_count() or 1))
    add('--overwrite', action='store_true', help='convert finished frames again')
    for split, count in counts.items():
        add(f'--expect-{split}', type=int, default=count, help='default: %(default)s')
    return parser


def parse(parser: ArgumentParser, argv: Sequence[str] | None) -> Namespace:
    args = parser.parse_args(argv)
    if args.workers < 1:
        parser.error(f'--workers {args.workers} is below 1')
    return args


def expected(args: Namespace, counts: Mapping[str, int]) -> dict[str, int]:
    """Return the number of frames that each split must have, by the command line."""
    return {split: getattr(args, f'expect_{split}') for split in counts}


def check_counts(source: Any, splits: Mapping[str, Sequence], expected: Mapping[str, int]) -> None:
    """Reject a split without the official number of frames."""
    for name, frames in splits.items():
        if len(frames) != expected[name]:
            raise ValueError(
                f'{source} has {len(frames)} frames to {name}, but the official split has '
                f'{expected[name]}: use the official archive, or give --expect-{name}'
            )


@dataclass(frozen=True)
class Target:
    """Output folder of a converter: each subfolder has a file of each frame, and there are splits.

    Args:
        out: Path of the folder.
        suffixes: Suffix of the files in each subfolder.
    """

    out: Path
    suffixes: Mapping[str, str]

    def files(self, frame: str) -> list[Path]:
        return [self.out / folder / f'{frame}{suffix}' for folder, suffix in self.suffixes.items()]

    def finished(self, frame: str) -> bool:
        """Whether all files are written, i.e. exist, because they are written atomically."""
        return all(path.exists() and path.stat().st_size for path in self.files(frame))

    def write(self, frame: str, *contents: bytes) -> None:
        for path, data in zip(self.files(frame), contents, strict=True):
            write(path, data)

    def fill(
        self,
        source: Mapping[str, Any],
        splits: Mapping[str, Sequence[str]],
        work: Callable[[str], None],
        args: Namespace,
        console: Console,
    ) -> None:
        """Convert unfinished frames, then write the splits.

        Args:
            source: Facts that identify the source.
            splits: Names of the frames of each split.
            work: Function that converts a frame.
            args: Command line with ``workers`` and ``overwrite``. Workers are threads, because
                most of the time is spent on encoding.
            console: Console for messages.
        """
        make_folders(self.out, (*self.suffixes, 'splits'))
        *_, last = self.suffixes  # a frame without its last file is not finished
        made = list((self.out / last).glob(f'*{self.suffixes[last]}'))
        frames = sorted(frame for of_split in splits.values() for frame in of_split)
        with made_from(self.out, source, made, args.overwrite, lists_in(self.out)):
            left = [frame for frame in frames if not self.finished(frame)]
            if len(left) < len(frames):
                console.print(f'{len(frames) - len(left)} frames are finished already')
            run_all(ThreadPoolExecutor(args.workers), work, left, console)
            for name, of_split in splits.items():  # last: they mark the set as complete
                write(self.out / 'splits' / f'{name}.txt', ''.join(f'{f}\n' for f in of_split))
        counts = ', '.join(f'{len(of_split)} {name}' for name, of_split in splits.items())
        console.print(f'{len(frames)} frames ({counts}) in {self.out}')


@contextmanager
def made_from(
    out: Path,
    source: Mapping[str, Any],
    made: Sequence[Path],
    overwrite: bool,
    others: Sequence[Path] = (),
    option: str = '--out',
) -> Iterator[dict[str, Any]]:
    """Record the source of a folder in ``source.json``; reject a folder of another source.

    While files are overwritten the record says so, so that the same command continues after an
    interruption.

    Args:
        out: Path of the folder.
        source: Facts that identify the source.
        made: Existing files that must be of this source; ``overwrite`` removes them.
        overwrite: Whether to make all files again.
        others: Further files that ``overwrite`` removes.
        option: Option that names the folder, for errors.

    Yields:
        The record, to which results can be added. It has those of the earlier run that made
        ``made``.
    """
    path = out / 'source.json'
    now = json.loads(json.dumps(source))
    was = json.loads(path.read_text()) if path.exists() else {}
    known = {key: was[key] for key in now if key in was}
    same = known == now
    if same and OVERWRITING in was:
        note = was
    elif overwrite:
        for file in (*made, *others):
            file.unlink()
        note = {**now, OVERWRITING: True}
    elif made and not same:
        raise ValueError(
            f'{out} was made from another source or in another way '
            f'({json.dumps(known) if known else "unknown"}, now {json.dumps(now)}): choose '
            f'another {option}, or --overwrite'
        )
    else:
        note = was if made else now
    write(path, json.dumps(note, indent=1))
    yield note
    note.pop(OVERWRITING, None)
    write(path, json.dumps(note, indent=1))


def lists_in(out: Path) -> list[Path]:
    """Return the lists of frames that a converter has written."""
    return sorted((out / 'splits').glob('*.txt'))


def make_folders(out: Path, names: Iterable[str]) -> None:
    """Make folders below ``out``, and remove what an interrupted write left in them."""
    for name in names:
        (out / name).mkdir(parents=True, exist_ok=True)
        for part in (out / name).glob('.*.part'):
            part.unlink()


def run_all(
    pool: Executor, work: Callable[[Any], Any], frames: Sequence[Any], console: Console
) -> list[Any]:
    """Work on all frames with a progress bar, and return the results.

    Ctrl-C finishes the current frames.
    """
    columns = ('[progress.description]{task.description}', BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress, pool:
        task = progress.add_task('frames', total=len(frames))
        try:
            results = []
            for result in pool.map(work, frames):
                results.append(result)
                progress.advance(task)
            return results
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
