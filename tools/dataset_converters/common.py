"""What dataset converters share: options, the folder they write, progress."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from tools.common import write


def converter_parser(doc: str | None, out: str, counts: Mapping[str, int]) -> ArgumentParser:
    """A parser with what all converters of official archives take.

    Args:
        doc: what ``--help`` says first.
        out: default of ``--out``.
        counts: frames of the official split, by its name.
    """
    parser = ArgumentParser(description=doc, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--out', type=Path, default=Path(out), help='default: %(default)s')
    add('--workers', type=int, default=min(8, os.cpu_count() or 1))
    add('--overwrite', action='store_true', help='convert finished frames again')
    for split, count in counts.items():
        add(f'--expect-{split}', type=int, default=count, help='default: %(default)s')
    return parser


def parse(parser: ArgumentParser) -> Namespace:
    args = parser.parse_args()
    if args.workers < 1:
        parser.error(f'--workers {args.workers} is below 1')
    return args


def expected(args: Namespace, counts: Mapping[str, int]) -> dict[str, int]:
    """Frames that each split must have, by the command line."""
    return {split: getattr(args, f'expect_{split}') for split in counts}


def check_counts(source: Any, splits: Mapping[str, Sequence], expected: Mapping[str, int]) -> None:
    """Refuse a split that has not the official number of frames."""
    for name, frames in splits.items():
        if len(frames) != expected[name]:
            raise ValueError(
                f'{source} has {len(frames)} frames to {name}, but the official split has '
                f'{expected[name]}: take the official archive, or say --expect-{name}'
            )


@dataclass(frozen=True)
class Target:
    """The folder that a converter writes: a file of each frame in each folder, and the splits.

    Args:
        out: the folder.
        suffixes: of the files, by folder.
    """

    out: Path
    suffixes: Mapping[str, str]

    def files(self, frame: str) -> list[Path]:
        return [self.out / folder / f'{frame}{suffix}' for folder, suffix in self.suffixes.items()]

    def finished(self, frame: str) -> bool:
        """Whether all files are written, which is whether they exist: they appear in one step."""
        return all(path.exists() and path.stat().st_size for path in self.files(frame))

    def write(self, frame: str, *contents: bytes) -> None:
        for path, data in zip(self.files(frame), contents, strict=True):
            write(path, data)

    def prepare(self, source: Mapping[str, Any], overwrite: bool) -> None:
        """Make the folders; refuse to mix frames of two sources in them.

        Args:
            source: what tells it from others.
            overwrite: forget what is finished.
        """
        make_folders(self.out, (*self.suffixes, 'splits'))
        note = self.out / 'source.json'
        now = json.dumps(source)
        *_, last = self.suffixes
        frames = list((self.out / last).glob(f'*{self.suffixes[last]}'))
        was = note.read_text() if note.exists() else 'who knows' if frames else now
        if overwrite:  # a frame without its last file is not finished, now and after a stop
            for path in (*frames, *(self.out / 'splits').glob('*.txt')):
                path.unlink()
        elif was != now:
            raise ValueError(
                f'{self.out} was made from another source or depth ({was}, now {now}): choose '
                'another --out, or --overwrite'
            )
        write(note, now)

    def fill(
        self,
        splits: Mapping[str, Sequence[str]],
        work: Callable[[str], None],
        workers: int,
        console: Console,
    ) -> None:
        """Convert what is not finished, then write the splits.

        Args:
            splits: names of frames.
            work: converts a frame.
            workers: threads; they serve, because most of the time goes into encoding.
            console: where to tell of it.
        """
        frames = sorted(frame for of_split in splits.values() for frame in of_split)
        left = [frame for frame in frames if not self.finished(frame)]
        if len(left) < len(frames):
            console.print(f'{len(frames) - len(left)} frames are finished already')
        run_all(ThreadPoolExecutor(workers), work, left, console)
        for name, of_split in splits.items():  # last, because they say that the set is whole
            write(self.out / 'splits' / f'{name}.txt', ''.join(f'{f}\n' for f in of_split))
        counts = ', '.join(f'{len(of_split)} {name}' for name, of_split in splits.items())
        console.print(f'{len(frames)} frames ({counts}) in {self.out}')


def make_folders(out: Path, names: Iterable[str]) -> None:
    """Make folders below ``out``, and remove what an interrupted write left in them."""
    for name in names:
        (out / name).mkdir(parents=True, exist_ok=True)
        for part in (out / name).glob('.*.part'):
            part.unlink()


def run_all(
    pool: Executor, work: Callable[[Any], None], frames: Sequence[Any], console: Console
) -> None:
    """Do the work on all frames with a progress bar; Ctrl-C finishes those that are begun."""
    columns = ('[progress.description]{task.description}', BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress, pool:
        task = progress.add_task('frames', total=len(frames))
        try:
            for _ in pool.map(work, frames):
                progress.advance(task)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
