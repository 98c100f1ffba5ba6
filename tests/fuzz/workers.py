"""Cases in processes of their own: one that crashes or hangs takes no other with it."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .outcomes import BARE, CRASH, HANG

EACH = 100  # cases of a process: what one leaves behind does not reach far
LIMIT = 120  # seconds for a case
MEMORY = 4 * 2**30  # bytes that a case may take


def run(
    numbers: Sequence[int], work: Callable[[int], tuple[str, str]], prepare: Callable[[], None]
) -> Iterator[tuple[int, str, str, float]]:
    """Run cases.

    Args:
        numbers: Of the cases.
        work: Runs a case by its number and returns outcome and detail.
        prepare: Called in each new process.

    Yields:
        Number, outcome, detail and seconds of each case.
    """
    left = list(numbers)
    while left:
        part = left[:EACH]
        done = 0
        for answer in _process(part, work, prepare):
            yield answer
            done += 1
        left = left[done:]


def _process(
    part: list[int], work: Callable[[int], tuple[str, str]], prepare: Callable[[], None]
) -> Iterator[tuple[int, str, str, float]]:
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reader)
        _child(part, work, prepare, writer)
    os.close(writer)
    with os.fdopen(reader, 'rb', buffering=0) as pipe:
        data, start = b'', time.monotonic()
        for number in part:
            while b'\n' not in data:
                ready = select.select([pipe], [], [], max(0, start + LIMIT - time.monotonic()))[0]
                more = pipe.read(2**16) if ready else b''
                if not more:
                    os.kill(pid, signal.SIGKILL)
                    status = os.waitpid(pid, 0)[1]
                    what = f'ended with status {status}' if ready else f'took more than {LIMIT} s'
                    yield number, CRASH if ready else HANG, what, time.monotonic() - start
                    return
                data += more
            line, data = data.split(b'\n', 1)
            yield number, *json.loads(line), time.monotonic() - start
            start = time.monotonic()
        os.waitpid(pid, 0)


def _child(
    part: list[int],
    work: Callable[[int], tuple[str, str]],
    prepare: Callable[[], None],
    writer: int,
) -> None:
    """Run cases and leave; what libraries print is dropped."""
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(i, m) for i, m in enumerate('rww'))
        size = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))
        prepare()
        for number in part:
            try:
                answer = work(number)
            except BaseException:
                answer = (BARE, f'the harness itself: {traceback.format_exc()[-1500:]}')
            os.write(writer, json.dumps(answer).encode() + b'\n')
    finally:
        os._exit(0)
