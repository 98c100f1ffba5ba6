"""What command-line tools share: whole files, and an end in a line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path


def write(path: Path, data: bytes | str) -> None:
    """All or nothing: under the final name stands the whole file, or none."""
    from mmcen.files import whole_file  # a broken OpenMMLab is told by the tool, not here

    with whole_file(path) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)


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
