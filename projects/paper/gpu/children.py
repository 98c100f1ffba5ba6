"""Processes that print results line by line, and end with their time."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[3]


class Children:
    """Several processes, whose lines come in the order in which they are printed.

    Args:
        commands: By name.
        log: Takes their standard errors.
        threads: Number of threads of the CPU, for each.

    Use as a context manager: on leaving it, all processes have ended.
    """

    def __init__(
        self, commands: Mapping[str, Sequence[str]], log: IO[str], threads: int = 2
    ) -> None:
        own = {'OMP_NUM_THREADS': str(threads), 'PYTHONUNBUFFERED': '1', 'PYTHONWARNINGS': 'ignore'}
        env = {**os.environ, **own}
        self.lines: queue.Queue[tuple[str, str | None]] = queue.Queue()
        self.processes = {
            name: subprocess.Popen(
                command, cwd=ROOT, env=env, text=True, start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )
            for name, command in commands.items()
        }  # fmt: skip
        self.running = set(self.processes)
        for name in self.processes:
            threading.Thread(target=self._read, args=(name,), daemon=True).start()

    def _read(self, name: str) -> None:
        for line in self.processes[name].stdout or ():
            self.lines.put((name, line.rstrip()))
        self.lines.put((name, None))

    def until(self, deadline: float) -> Iterator[tuple[str, str | None]]:
        """Names and lines, None where a process has ended, until all have or the time is over.

        Args:
            deadline: By ``time.monotonic``.
        """
        while self.running and (left := deadline - time.monotonic()) > 0:
            try:
                name, line = self.lines.get(timeout=left)
            except queue.Empty:
                return
            if line is None:
                self.running.discard(name)
                self.processes[name].wait()
            yield name, line

    def tell(self, name: str, line: str) -> None:
        """Write a line to the standard input of a process that may have ended."""
        pipe = self.processes[name].stdin
        assert pipe is not None
        try:
            pipe.write(line + '\n')
            pipe.close()
        except BrokenPipeError:
            pass

    def failed(self, name: str) -> bool:
        return self.processes[name].returncode not in (None, 0)

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
