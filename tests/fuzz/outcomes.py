"""What comes of a case: a clear error, a bare one, the right result, a wrong one, or execution."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mmcen
from mmcen.datasets.transforms import plausible
from mmcen.datasets.transforms.plausible import ImplausibleWarning

CLEAR, BARE, CRASH, HANG, SILENT, EXECUTES = (
    'clear error', 'bare error', 'crash', 'hang', 'silent', 'execution',
)  # fmt: skip
RIGHT, UNKNOWABLE = 'right result', 'unknowable'
OUTCOMES = (CLEAR, RIGHT, UNKNOWABLE, BARE, SILENT, CRASH, HANG, EXECUTES)
BAD = (BARE, SILENT, CRASH, HANG, EXECUTES)
PACKAGE = str(Path(mmcen.__file__).parent)
SENTENCES = (ValueError, TypeError, OSError, ImportError)


@dataclass
class Case:
    """One damaged input.

    Attributes:
        work: Reads it, through a public entry.
        right: Whether a result is right. By default none is.
        unknowable: Whether no program could see that the result is not right.
        names: An error has to contain one of these words; none: any.
        note: What was done to the input.
        allowed: Audit events that reading an undamaged input has, too.
    """

    work: Callable[[], Any]
    right: Callable[[Any], bool] = lambda result: False
    unknowable: Callable[[], bool] = lambda: False
    names: Sequence[str] = ()
    note: str = ''
    allowed: tuple[str, ...] = ()


class Bare(Exception):
    """A case saw an error that is no sentence."""


class Clear(Exception):
    """A case saw a sentence."""


class Watch:
    """Records what a file may never do: start programs, unpickle, write elsewhere, use the network.

    Such an operation is stopped before it takes place. A hook of Python's audit events cannot be
    removed, so this is for processes that end afterwards.

    Args:
        folder: Where files may be written.
    """

    NEVER = (
        'os.system', 'os.exec', 'os.posix_spawn', 'os.spawn', 'subprocess.Popen', 'socket.connect',
        'os.fork', 'os.forkpty', 'os.kill', 'webbrowser.open', 'ftplib.connect', 'smtplib.connect',
    )  # fmt: skip
    WRITES = ('os.mkdir', 'os.remove', 'os.rename', 'os.rmdir', 'os.link', 'os.symlink', 'os.chmod')

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen, self.on = os.path.realpath(folder), [], False
        self.allowed: tuple[str, ...] = ()
        sys.addaudithook(self._audit)

    def _audit(self, event: str, args: tuple) -> None:
        if not self.on or event in self.allowed:
            return
        if event in self.NEVER or event == 'pickle.find_class':
            self._stop(f'{event} {args[:2]}')
        if event == 'open' and self._writes(args) and not self._inside(args[0]):
            self._stop(f'writes {args[0]!r}')
        if event in self.WRITES and not self._inside(args[0]):
            self._stop(f'{event} {args[0]!r}')

    def _stop(self, what: str) -> None:
        self.seen.append(what)
        raise PermissionError(f'not in a test: {what}')

    @staticmethod
    def _writes(args: tuple) -> bool:
        return bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

    def _inside(self, path: Any) -> bool:
        if isinstance(path, int):
            return True
        place = os.path.realpath(os.fsdecode(path))
        return place == os.devnull or f'{place}/'.startswith(f'{self.folder}/')


def sort(case: Case, watch: Watch) -> tuple[str, str]:
    """Run a case.

    Returns:
        The outcome, and a line about it.
    """
    watch.seen.clear()
    plausible._told.cache_clear()
    watch.on, watch.allowed = True, case.allowed
    try:
        outcome, detail = _run(case)
    finally:
        watch.on = False
    executed = watch.seen or [w for w in ('executed',) if Path(watch.folder, w).exists()]
    if executed:
        return EXECUTES, f'{case.note}: {executed[0]}'
    return outcome, f'{case.note}: {detail}'


def _run(case: Case) -> tuple[str, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            warnings.simplefilter('error', ImplausibleWarning)
            result = case.work()
        if case.right(result):
            return RIGHT, ''
        if case.unknowable():
            return UNKNOWABLE, f'{result!r}'[:200]
        return SILENT, f'{result!r}'[:300]
    except Clear as error:
        return CLEAR, str(error)
    except Bare as error:
        return BARE, str(error)
    except Exception as error:
        clear = isinstance(error, SENTENCES) and _is_ours(error) and _names(case, str(error))
        kind = '' if clear else f'{type(error).__name__} at {_place(error)}: '
        return (CLEAR if clear else BARE), f'{kind}{error}'


def _names(case: Case, text: str) -> bool:
    return is_sentence(text) and (not case.names or any(name in text for name in case.names))


def is_sentence(text: str) -> bool:
    """Whether an error says something: several words."""
    return len(text.split()) >= 3


def _is_ours(error: BaseException) -> bool:
    """Whether mmcen raised it: what OpenMMLab, torch and Python say does not name a user's file."""
    frames = traceback.extract_tb(error.__traceback__)
    return frames[-1].filename.startswith(PACKAGE) or isinstance(error, ImplausibleWarning)


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename.startswith(PACKAGE)]
    return ', '.join(f'{Path(f.filename).name}:{f.lineno}' for f in [*own[-1:], frames[-1]])


def same(first: Any, second: Any) -> bool:
    """Whether nested results are equal."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return list(first) == list(second) and all(same(first[k], second[k]) for k in first)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return type(first) is type(second) and bool(first == second)
