"""Write files that are complete or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def whole_file(path: str | Path, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path; the file is renamed to ``path`` when it is complete.

    Missing folders are made. After an error the temporary file is removed, and an older file is
    unchanged. Several writers of one file do not interfere: the last one to finish wins.

    Args:
        path: File to write.
        durable: Whether to wait until the data is on the disk, so that a power failure leaves the
            old or the new file.
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
    """Write a file atomically: an interrupted write leaves the old file."""
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
