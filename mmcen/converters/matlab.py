"""Read files of MATLAB; errors name missing and damaged files."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

try:
    import h5py
    from scipy.io import loadmat
except ImportError as missing:
    raise ImportError(f'the converter needs {missing.name}: pip install h5py scipy') from missing


def read_mat(path: Path, keys: Sequence[str], data: bytes | None = None) -> dict[str, np.ndarray]:
    """Read a file of MATLAB 5 that has all ``keys``.

    Args:
        path: Path of the file.
        keys: Names of arrays.
        data: Content of the file, if it is part of an archive.
    """
    if data is None and not path.is_file():
        raise ValueError(f'{path} is missing: put it there, or give its path (see --help)')
    try:
        with ProcessPoolExecutor(1) as pool:  # some damaged files crash scipy's reader
            content = pool.submit(_load, path, data).result()
    except Exception as error:  # scipy raises many types for damaged files
        raise ValueError(f'{path} cannot be read ({error}): fetch it again') from error
    for key in keys:
        if key not in content:
            raise ValueError(f'{path} has no {key}: it is another file, take the official one')
    return content


def _load(path: Path, data: bytes | None) -> dict[str, np.ndarray]:
    return loadmat(path if data is None else io.BytesIO(data))


@contextmanager
def open_mat73(path: Path, part: str = '', data: bytes | None = None) -> Iterator[h5py.File]:
    """Open a file of MATLAB 7.3, which is HDF5 with transposed arrays.

    Args:
        path: Path of the file.
        part: Name of the part that is read, for errors.
        data: Content of the file, if it is part of an archive.
    """
    if data is None and not path.is_file():
        raise ValueError(f'{path} is missing: download {path.name} first')
    try:
        with h5py.File(path if data is None else io.BytesIO(data)) as source:
            yield source
    except (OSError, RuntimeError) as error:
        whole = f'{path}: {part}' if part else path
        raise ValueError(f'{whole} cannot be read ({error}): download it again') from error
