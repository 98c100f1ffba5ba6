"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A name to write under; what is written there gets its own name when it is complete.

    The folder is made. After an error nothing is left, and an older file stays as it was.

    Args:
        path: of the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.part')
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write(path: Path, data: bytes | str) -> None:
    """Write a file as a whole: an interrupted write leaves nothing under its name."""
    with whole_file(path) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)
