"""Shared parts of commands: exit status and parsing of arguments."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable

from ..shipped import CONFIG_OF, DEFAULT_MODEL

UNITS = {'m': 1.0, 'cm': 0.01, 'mm': 0.001}


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
        if isinstance(error, BrokenPipeError) and reader_has_left(probe='\n'):
            return 141  # as a shell reports SIGPIPE
        sys.stderr.write(f'error: {error}\n')
        return 1
    except KeyboardInterrupt:
        sys.stderr.write('\nstopped: run the same command again to continue\n')
        return 130


def reader_has_left(probe: str = '') -> bool:
    """Return whether the program that reads the output has ended, such as ``head``.

    The rest of the output is dropped then. Python would print a traceback when it exits.

    Args:
        probe: Text to write, because output that has failed once is not tried again.
    """
    try:
        sys.stdout.write(probe)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


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


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name the model to predict with; :func:`check_model` checks them."""
    parser.add_argument(
        'model',
        nargs='?',
        default=DEFAULT_MODEL,
        help='config file, an .onnx file of `mmcen export`, or the name of a model that comes with '
        'mmcen: %(default)s, for colour and depth of rooms, is the default',
    )
    parser.add_argument('checkpoint', nargs='?', help="checkpoint of the config's model")


def check_model(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Reject a config without a checkpoint."""
    if args.checkpoint is None and not (args.model.endswith('.onnx') or args.model in CONFIG_OF):
        parser.error(
            'a config needs a checkpoint: give both, an .onnx file, or the name of a model that '
            f'comes with mmcen ({", ".join(CONFIG_OF)})'
        )
