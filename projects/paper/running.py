"""Run trainings in processes, some at a time; they can be resumed, and failures are recorded."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .store import ERRORS, LOG, ROOT, Folder

SCRIPT = Path(__file__).with_name('train_run.py')


@contextmanager
def lock(work_dir: Path) -> Iterator[None]:
    """Reject a second harness in the same folder.

    Raises:
        ValueError: If another one uses the folder.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    with (work_dir / '.lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(
                f'another projects/paper/run.py works in {work_dir}: wait for it, or choose '
                'another --work-dir'
            ) from error
        yield


def run_all(folders: Sequence[Folder], jobs: int, console: Console) -> None:
    """Train and measure unfinished runs.

    A run that fails leaves its log and its error in its folder, and the others continue. Ctrl-C
    stops all; the same command continues from the last checkpoints.

    Args:
        folders: Folders of the runs, each once.
        jobs: Number of parallel processes, which share the cores.
        console: Console for the progress.
    """
    left = [folder for folder in folders if folder.state != 'finished']
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    processes = Processes(jobs)
    with (
        Progress(TextColumn('{task.description}'), *columns, console=console) as progress,
        ThreadPoolExecutor(jobs) as pool,
    ):
        bar = progress.add_task('runs', total=len(left))
        futures = {pool.submit(processes.run, folder, progress): folder for folder in left}
        try:
            for future in as_completed(futures):
                future.result()
                progress.advance(bar)
                folder = futures[future]
                if folder.state == 'failed':
                    console.print(f'failed: {folder.path.name}: {folder.why}', soft_wrap=True)
        except BaseException:
            processes.stop()
            pool.shutdown(cancel_futures=True)
            raise


class Processes:
    """Trainings in separate processes, which end with this process.

    Args:
        jobs: Number of parallel processes.
    """

    def __init__(self, jobs: int) -> None:
        threads = str(max(1, (os.cpu_count() or 1) // jobs))
        self.env = {**os.environ, 'OMP_NUM_THREADS': threads, 'MKL_NUM_THREADS': threads}
        self.running: set[subprocess.Popen] = set()
        self.stopping = threading.Event()

    def run(self, folder: Folder, progress: Progress) -> None:
        """Run one training to its end, with a progress bar."""
        if self.stopping.is_set():
            return
        folder.prepare()
        bar = progress.add_task(f'  {folder.path.name}', total=None)
        command = [sys.executable, '-W', 'ignore', str(SCRIPT), str(folder.path)]
        with (folder.path / LOG).open('a') as log, (folder.path / ERRORS).open('w') as errors:
            process = subprocess.Popen(
                command, cwd=ROOT, env=self.env, text=True, stdout=subprocess.PIPE, stderr=errors
            )
            self.running.add(process)
            for line in process.stdout or ():
                words = line.split()
                if len(words) == 2 and all(word.isdigit() for word in words):
                    progress.update(bar, completed=int(words[0]), total=int(words[1]))
                else:
                    log.write(line)
            status = process.wait()
            self.running.discard(process)
        progress.remove_task(bar)
        if status and not self.stopping.is_set():
            folder.fail(_why(folder.path / ERRORS, status))

    def stop(self) -> None:
        """End all processes without recording failures."""
        self.stopping.set()
        for process in list(self.running):
            process.send_signal(signal.SIGTERM)


def _why(errors: Path, status: int) -> str:
    """Return the last line of the errors, usually an exception, or a sentence about a kill."""
    if status == -signal.SIGKILL:
        return f'killed, most likely as memory ran out: {errors.parent / LOG}'
    lines = [line for line in errors.read_text().splitlines() if line.strip()]
    return lines[-1] if lines else f'exit status {status}'
