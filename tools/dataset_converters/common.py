"""What dataset converters share: whole files, progress, ends that can be taken up again."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn


def write(path: Path, data: bytes) -> None:
    """All or nothing: under the final name stands the whole file, or none."""
    part = path.with_name(f'.{path.name}.part')
    part.write_bytes(data)
    os.replace(part, path)


def make_folders(out: Path, names: Iterable[str]) -> None:
    """Make folders below ``out``, and remove what an interrupted :func:`write` left in them."""
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


def exit_status(
    run: Callable[[argparse.Namespace, Console], None], args: argparse.Namespace
) -> int:
    """Run a converter; its errors in a line, without a traceback."""
    try:
        run(args, Console(highlight=False, soft_wrap=True))
    except (ValueError, OSError) as error:
        sys.stderr.write(f'error: {error}\n')
        return 1
    except KeyboardInterrupt:
        sys.stderr.write('\nstopped: run the same command again to go on\n')
        return 130
    return 0
