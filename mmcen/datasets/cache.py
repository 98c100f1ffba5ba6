"""Decoded frames, kept as memory-mapped files that all processes of a machine share."""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import tempfile
import time
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np

try:
    import fcntl
except ImportError:  # not on Windows, where what a killed process left stays
    fcntl = None  # type: ignore[assignment]

FORMAT = 1  # another number whenever files decode to other arrays, or HHA is made in another way
SHARED_MEMORY = Path('/dev/shm')
PREFIX, LOCK = 'mmcen-cache-', 'lock'
STALE = 3600.0  # seconds after which an unfinished file belongs to nobody


class FrameCache:
    """Arrays by the file they were decoded from.

    Each is an uncompressed ``.npy`` file, named after the path, time and size of its source, so
    that a changed source is decoded anew. It is written under another name and moved in place when
    it is whole, so readers and writers in any number of processes need no lock: who comes second
    writes the same. Arrays are mapped into memory copy-on-write: processes share the pages, and a
    transform that writes into its picture changes its own copy alone.

    Args:
        folder: An existing folder. It may be kept for the next training, and serve several
            trainings and data sets at once.

    Raises:
        FileNotFoundError: There is no such folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f'the cache folder {folder} does not exist: make it first, or use cache="memory"'
            )
        _remove_unfinished(self.folder)

    def fetch(self, source: str, read: Callable[[], np.ndarray], kind: str = '') -> np.ndarray:
        """The array of a source file: from the cache, or else decoded and put there.

        Args:
            source: Path of a local file.
            read: Decodes it.
            kind: Tells apart arrays that the same file is decoded to.

        Returns:
            The array; what is written into it is seen by nobody else.

        Raises:
            ValueError: The source is not a local file.
            OSError: The cache cannot be written, e.g. because the disk is full.
        """
        place = self._place(source, kind)
        if place is not None:
            kept = _map(place)
            if kept is not None:
                return kept
        array = read()
        if place is None:
            raise ValueError(
                f'{source} is not a local file, and only those are cached: leave out cache'
            )
        self._write(place, array)
        return array

    def _place(self, source: str, kind: str) -> Path | None:
        """The file that holds the array, if it is there; None if the source is not."""
        try:
            facts = os.stat(source)
        except FileNotFoundError:
            return None
        words = f'{FORMAT} {kind} {os.path.abspath(source)}'
        name = hashlib.sha256(words.encode()).hexdigest()[:32]
        return self.folder / name[:2] / f'{name}-{facts.st_mtime_ns:x}-{facts.st_size:x}.npy'

    def _write(self, place: Path, array: np.ndarray) -> None:
        """The whole file or none; older versions of it go."""
        part = place.with_name(f'.{uuid.uuid4().hex}.part')
        try:
            place.parent.mkdir(exist_ok=True)
            with part.open('wb') as file:
                contiguous = np.ascontiguousarray(array)
                np.lib.format.write_array(file, contiguous, (1, 0), allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())  # else a power failure may leave the name without the data
            os.replace(part, place)
        except OSError as error:
            raise OSError(
                error.errno,
                f'the cache in {self.folder} cannot be written ({error.strerror}): make room, name '
                'another folder, or leave out cache',
            ) from error
        finally:
            part.unlink(missing_ok=True)
        for old in place.parent.glob(f'{place.name.partition("-")[0]}-*.npy'):
            if old != place:
                old.unlink(missing_ok=True)


class MemoryCache(FrameCache):
    """A cache in a folder of its own in shared memory, which goes with the process.

    Processes that are started by this one share it. It is removed when this object is, and what a
    killed process has left, when mmcen is next imported.

    Raises:
        OSError: As :class:`FrameCache`; a container may have little shared memory.
    """

    def __init__(self) -> None:
        super().__init__(tempfile.mkdtemp(prefix=PREFIX, dir=remove_abandoned()))
        lock = _lock(self.folder)
        self._finalizer = weakref.finalize(self, _remove, self.folder, lock, os.getpid())

    def __deepcopy__(self, memo: dict) -> MemoryCache:
        return self  # a copied data set uses the same folder, so that must not go before the copy

    def __reduce__(self) -> tuple:
        return FrameCache, (self.folder,)  # another process uses the folder, and does not own it


def open_cache(cache: bool | str | Path | None) -> FrameCache | None:
    """The cache that a data set's argument asks for.

    Args:
        cache: ``'memory'`` or True, the path of a folder, or None or False for no cache.
    """
    if cache is None or cache is False:
        return None
    return MemoryCache() if cache is True or cache == 'memory' else FrameCache(cache)


def _map(place: Path) -> np.ndarray | None:
    """The array of a file, mapped; None if there is no file, or not all of it.

    np.load(mmap_mode='c') does the same and takes twice as long.
    """
    try:
        with place.open('rb') as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            return np.frombuffer(pages, dtype, offset=file.tell()).reshape(shape)
    except (FileNotFoundError, ValueError):
        return None


def _remove_unfinished(folder: Path) -> None:
    """What interrupted writes have left; young ones may be at work in another process."""
    for part in folder.glob('*/.*.part'):
        try:
            if time.time() - part.stat().st_mtime > STALE:
                part.unlink()
        except OSError:  # gone meanwhile, or not ours
            continue


def _lock(folder: Path) -> int | None:
    """Mark a folder as in use until this process and those it forks are gone."""
    if fcntl is None:
        return None
    unlocked = folder / f'.{LOCK}'
    lock = os.open(unlocked, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.replace(unlocked, folder / LOCK)  # from here on others look at it
    return lock


def remove_abandoned() -> Path:
    """Remove the caches of killed processes, whose locks are free; ``import mmcen`` does this.

    Returns:
        The folder of all caches: shared memory, or where there is none, temporary files.
    """
    shared = os.access(SHARED_MEMORY, os.W_OK)
    parent = SHARED_MEMORY if shared else Path(tempfile.gettempdir())
    for path in parent.glob(f'{PREFIX}*/{LOCK}') if fcntl else ():
        try:
            lock = os.open(path, os.O_RDWR)
        except OSError:  # gone meanwhile, or another user's
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent, ignore_errors=True)
        except OSError:  # in use
            continue
        finally:
            os.close(lock)
    return parent


def _remove(folder: Path, lock: int | None, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked worker, which ends before
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


remove_abandoned()
