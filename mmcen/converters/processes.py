"""Work on frames in processes that behave: they stop with their parent, and Ctrl-C is its alone."""

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
    """Do the work on all frames with a progress bar, and return what it gives.

    Args:
        work: A function of a module, so that processes find it.
        frames: What it is given, one by one.
        workers: Processes.
        console: Where the bar is.
        start: Is called in every process first, with ``arguments``.
        arguments: Arguments of ``start``.

    Raises:
        ValueError: A process died.
    """
    threads = cv2.getNumThreads()
    # Before the fork: a child that ends OpenCV's threads waits forever for those of its parent.
    cv2.setNumThreads(1)
    pool = ProcessPoolExecutor(workers, initializer=_start, initargs=(start, arguments))
    try:
        return run_all(pool, work, frames, console)
    except BrokenProcessPool as error:
        raise ValueError(
            'a worker died, perhaps for want of memory: run again with fewer --workers'
        ) from error
    finally:
        cv2.setNumThreads(threads)


def _start(start: Callable[..., None] | None, arguments: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _leave_with_parent() -> None:
    """A parent that is killed cannot tell its workers to stop."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
    os._exit(1)
