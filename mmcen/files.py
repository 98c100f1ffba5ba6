"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def whole_file(path: str | Path, durable: bool = False) -> Iterator[Path]:
    """Give a name to write under; the file gets its own name when it is complete.

    The folder is made. After an error nothing is left, and an older file stays as it was. Several
    writers of one file do not disturb each other: the last one to finish wins.

    Args:
        path: File to write.
        durable: Wait until the disk has the data, so that a power failure leaves the old file or
            the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.{os.getpid()}-{uuid4().hex[:8]}.part')
    try:
        yield part
        if durable:
            _sync(part)
        os.replace(part, path)
        if durable and os.name == 'posix':
            _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def write(path: Path, data: bytes | str) -> None:
    """Write a file as a whole: an interrupted write leaves nothing under its name."""
    with whole_file(path) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)


def remove_unfinished(folder: str | Path) -> None:
    """Remove unfinished files of killed writers from a folder that has no other writer."""
    for part in Path(folder).glob('.*.part'):
        part.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
