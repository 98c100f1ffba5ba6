"""Shared parts of commands: exit status, parsing of arguments, shipped configs."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

UNITS = {'m': 1.0, 'cm': 0.01, 'mm': 0.001}
PACKAGE = Path(__file__).resolve().parents[1]
CLONE = PACKAGE.parent


def exit_status(work: Callable[[], int | None]) -> int:
    """Run a command; errors in its input are printed in one line, without a traceback.

    Args:
        work: Returns an exit status, None for success.
    """
    if threading.current_thread() is threading.main_thread():  # SIGTERM ends as Ctrl-C does
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return work() or 0
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f'error: {error}\n')
        return 1
    except KeyboardInterrupt:
        sys.stderr.write('\nstopped: run the same command again to continue\n')
        return 130


def pair(text: str) -> tuple[str, str]:
    """Parse ``MODALITY=FILE``."""
    name, equals, place = text.partition('=')
    if not (name and equals and place):
        raise argparse.ArgumentTypeError(f"'{text}' is not MODALITY=FILE, such as rgb=a.png")
    return name, place


def unit(text: str) -> float:
    """Parse a unit of depth into metres."""
    try:
        return UNITS[text] if text in UNITS else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a unit: give m, cm, mm, or metres per stored unit such as 0.0002"
        ) from None


def shipped_config(name: str) -> Path:
    """Find a config of this clone or of the installed wheel."""
    clone = CLONE / 'configs' / 'cen' / name
    return clone if clone.is_file() else PACKAGE / '.mim' / 'configs' / 'cen' / name
