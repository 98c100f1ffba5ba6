"""Work on frames in processes that stop with their parent; only the parent handles Ctrl-C."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import cv2
from rich.console import Console

from .common import run_all


def run_in_processes(
    work: Callable[[Any], Any],
    frames: Sequence[Any],
    workers: int,
    console: Console,
    start: Callable[..., None] | None = None,
    arguments: tuple = (),
) -> list[Any]:
    """Work on all frames in processes with a progress bar, and return the results.

    Args:
        work: Function of one frame; it must be global in a module.
        frames: Arguments of ``work``.
        workers: Number of processes.
        console: Console for the progress bar.
        start: Function that every process calls first, with ``arguments``.
        arguments: Arguments of ``start``.

    Raises:
        ValueError: If a process died.
    """
    threads = cv2.getNumThreads()
    # Before the fork: a child that stops OpenCV's threads would wait forever for its parent's.
    cv2.setNumThreads(1)
    pool = ProcessPoolExecutor(workers, initializer=_start, initargs=(start, arguments))
    try:
        return run_all(pool, work, frames, console)
    except BrokenProcessPool as error:
        raise ValueError(
            'a worker died, perhaps out of memory: run again with fewer --workers'
        ) from error
    finally:
        cv2.setNumThreads(threads)


def _start(start: Callable[..., None] | None, arguments: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _leave_with_parent() -> None:
    """Exit when the parent ends: a killed parent cannot stop its workers."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
    os._exit(1)
