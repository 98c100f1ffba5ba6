"""Cache of decoded frames in memory-mapped files that all processes of a machine share."""

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
except ImportError:  # Windows, where files of killed processes are not removed
    fcntl = None  # type: ignore[assignment]

FORMAT = 1  # increase it whenever decoding or HHA changes
SHARED_MEMORY = Path('/dev/shm')
PREFIX, LOCK = 'mmcen-cache-', 'lock'
STALE = 3600.0  # seconds after which an unfinished file is abandoned


class FrameCache:
    """Store the arrays that files are decoded to.

    Each array is an uncompressed ``.npy`` file, named after the path, time and size of its source,
    so a changed source is decoded again. It is written under another name and renamed when it is
    complete, so readers and writers in any number of processes need no lock: several writers write
    the same. Arrays are mapped copy-on-write: processes share the pages, and a transform that
    writes into its image changes only its own copy.

    Args:
        folder: Existing folder. It can be kept for the next training, and be used by several
            trainings and data sets at once.

    Raises:
        FileNotFoundError: If the folder does not exist.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f'the cache folder {folder} does not exist: make it first, or use cache="memory"'
            )
        _remove_unfinished(self.folder)

    def fetch(self, source: str, read: Callable[[], np.ndarray], kind: str = '') -> np.ndarray:
        """Return the array of a source file from the cache, or decode and store it.

        Args:
            source: Path of a local file.
            read: Function that decodes it.
            kind: Name that separates several arrays of the same file.

        Returns:
            The array; writing into it does not change the cache.

        Raises:
            ValueError: If the source is not a local file.
            OSError: If the cache cannot be written, for example because the disk is full.
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
        """Return the path of the array's file; None if the source does not exist."""
        try:
            facts = os.stat(source)
        except FileNotFoundError:
            return None
        words = f'{FORMAT} {kind} {os.path.abspath(source)}'
        name = hashlib.sha256(words.encode()).hexdigest()[:32]
        return self.folder / name[:2] / f'{name}-{facts.st_mtime_ns:x}-{facts.st_size:x}.npy'

    def _write(self, place: Path, array: np.ndarray) -> None:
        """Write the complete file or none, and remove older versions."""
        part = place.with_name(f'.{uuid.uuid4().hex}.part')
        try:
            place.parent.mkdir(exist_ok=True)
            with part.open('wb') as file:
                contiguous = np.ascontiguousarray(array)
                np.lib.format.write_array(file, contiguous, (1, 0), allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())  # else a power failure may leave a file without data
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
    """Cache in a temporary folder in shared memory, which is removed with the process.

    Child processes share it. It is removed with this object; the next import of mmcen removes
    folders of killed processes.

    Raises:
        OSError: As for :class:`FrameCache`; a container may have little shared memory.
    """

    def __init__(self) -> None:
        super().__init__(tempfile.mkdtemp(prefix=PREFIX, dir=remove_abandoned()))
        lock = _lock(self.folder)
        self._finalizer = weakref.finalize(self, _remove, self.folder, lock, os.getpid())

    def __deepcopy__(self, memo: dict) -> MemoryCache:
        return self  # a copied data set uses the same folder, which must exist as long as the copy

    def __reduce__(self) -> tuple:
        return FrameCache, (self.folder,)  # another process uses the folder without owning it


def open_cache(cache: bool | str | Path | None) -> FrameCache | None:
    """Open the cache for the argument of a data set.

    Args:
        cache: ``'memory'`` or True, the path of a folder, or None or False for no cache.
    """
    if cache is None or cache is False:
        return None
    return MemoryCache() if cache is True or cache == 'memory' else FrameCache(cache)


def _map(place: Path) -> np.ndarray | None:
    """Map the array of a file; None if the file is missing or incomplete.

    np.load(mmap_mode='c') takes twice as long.
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
    """Remove old unfinished files; recent ones may belong to another process."""
    for part in folder.glob('*/.*.part'):
        try:
            if time.time() - part.stat().st_mtime > STALE:
                part.unlink()
        except OSError:  # already removed, or of another user
            continue


def _lock(folder: Path) -> int | None:
    """Mark a folder as in use until this process and its forked children end."""
    if fcntl is None:
        return None
    unlocked = folder / f'.{LOCK}'
    lock = os.open(unlocked, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.replace(unlocked, folder / LOCK)  # from now on other processes check it
    return lock


def remove_abandoned() -> Path:
    """Remove the caches of killed processes, whose locks are free; ``import mmcen`` does this.

    Returns:
        The folder of all caches: shared memory, or the folder of temporary files.
    """
    shared = os.access(SHARED_MEMORY, os.W_OK)
    parent = SHARED_MEMORY if shared else Path(tempfile.gettempdir())
    for path in parent.glob(f'{PREFIX}*/{LOCK}') if fcntl else ():
        try:
            lock = os.open(path, os.O_RDWR)
        except OSError:  # already removed, or of another user
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
    if os.getpid() == owner:  # not in a forked worker, which ends earlier
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


remove_abandoned()
