"""What dataset converters share: folders and progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn


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
