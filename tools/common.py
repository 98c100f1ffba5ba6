"""What command-line tools share: whole files, and an end in a line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path


def write(path: Path, data: bytes | str) -> None:
    """All or nothing: under the final name stands the whole file, or none."""
    part = path.with_name(f'.{path.name}.part')
    part.write_bytes(data.encode() if isinstance(data, str) else data)
    os.replace(part, path)


def exit_status(work: Callable[[], int | None]) -> int:
    """Do a tool's work; what is wrong with its input in a line, without a traceback.

    Args:
        work: gives an exit status, None for success.
    """
    try:
        return work() or 0
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f'error: {error}\n')
        return 1
    except KeyboardInterrupt:
        sys.stderr.write('\nstopped: run the same command again to go on\n')
        return 130
