"""Make OpenMMLab work with current Python libraries; only this module handles versions.

``mmcen`` calls :func:`prepare` first, before ``mmseg``, because what it finds or mends decides
whether ``mmseg`` can be imported at all:

1. an unsupported combination of packages ends in one sentence with the fix;
2. where mmcv has no compiled operators, a stand-in for ``mmcv._ext`` lets ``mmseg.models`` and
   ``mmagic.models`` import; an operator raises when it is called, not before;
3. what mmengine writes into its checkpoints is declared safe, so that resuming works with
   ``torch.load(weights_only=True)``, and whatever mmengine loads is verified
   (:mod:`mmcen.checkpoints`).

Versions are read from the packages' files before any of them is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import runpy
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib.machinery import ModuleSpec
from io import StringIO
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any, NoReturn

REQUIRED = ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmseg')
# Oldest release of each that the package is written for: since torch 2.6 what is loaded without
# further arguments cannot execute code.
OLDEST = {'torch': '2.6', 'mmengine': '0.10', 'mmcv': '2.0', 'mmseg': '1.2'}
# Upstream mmengine and mmsegmentation ended below these, the OneDL forks start from them.
FIRST_ONEDL = {'mmengine': '0.10.8', 'mmseg': '1.3'}
# From this Python on, numpy 1 has no wheels, and the OneDL forks are the stack.
NEEDS_ONEDL = sys.version_info >= (3, 13)
DISTRIBUTION = {
    'mmengine': 'onedl-mmengine>=0.10.12' if NEEDS_ONEDL else 'mmengine==0.10.7',
    'mmcv': 'onedl-mmcv>=2.3.6' if NEEDS_ONEDL else 'mmcv-lite==2.1.0',
    'mmseg': 'onedl-mmsegmentation>=1.4.2' if NEEDS_ONEDL else 'mmsegmentation==1.2.2',
}


def installed_versions() -> dict[str, str | None]:
    """Versions by import name, ``None`` where absent, read without importing any of them.

    The files are asked, not the distributions' metadata: mmcv, mmcv-lite and onedl-mmcv write
    into one folder, and the metadata of an overwritten one stays behind.
    """
    found: dict[str, str | None] = {}
    for name in OLDEST:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            found[name] = None
        else:
            version_file = Path(spec.origin).with_name('version.py')
            found[name] = runpy.run_path(str(version_file))['__version__']
    for name in ('torchvision', 'pkg_resources'):  # any version serves
        found[name] = 'any' if importlib.util.find_spec(name) else None
    return found


def find_problem(found: Mapping[str, str | None]) -> str | None:
    """Describe the problem of a combination of packages, with the fix, in one sentence.

    Args:
        found: versions by import name as :func:`installed_versions` gives them.

    Returns:
        The sentence, or ``None`` when the combination is supported.
    """
    for name in REQUIRED:
        if found[name] is None:
            package = DISTRIBUTION.get(name, name)
            return f"mmcen needs {name}, which is not installed: pip install '{package}'"

    for name, oldest in OLDEST.items():
        if _older(found, name, oldest):
            package = DISTRIBUTION.get(name, f'{name}>={oldest}')
            return f"mmcen needs {name} >= {oldest}, found {found[name]}: pip install '{package}'"

    if is_upstream(found, 'mmseg') and not _older(found, 'mmcv', '2.2'):
        return (
            f'mmsegmentation {found["mmseg"]} refuses mmcv >= 2.2, found {found["mmcv"]}: '
            "pip uninstall the distribution that brought it, then pip install 'mmcv-lite==2.1.0'"
        )
    if is_upstream(found, 'mmengine') and found['pkg_resources'] is None:
        return (
            f'mmengine {found["mmengine"]} needs pkg_resources, which setuptools dropped: '
            "pip install 'setuptools<81'"
        )
    return None


def _older(found: Mapping[str, str | None], name: str, version: str) -> bool:
    from packaging.version import Version

    return Version(str(found[name])) < Version(version)


def is_upstream(found: Mapping[str, str | None], name: str) -> bool:
    """Whether a package is OpenMMLab's own, not a fork's."""
    return _older(found, name, FIRST_ONEDL[name])


def provide_ops() -> bool:
    """Put a stand-in for ``mmcv._ext`` in place where mmcv's compiled operators do not load.

    Returns:
        Whether the stand-in is in use.
    """
    try:
        importlib.import_module('mmcv._ext')
    except ImportError as error:
        sys.modules['mmcv._ext'] = _MissingOps(error)
    return isinstance(sys.modules['mmcv._ext'], _MissingOps)


@contextmanager
def importable_mmagic() -> Iterator[None]:
    """Let mmagic 1.2 be imported beside numpy 2 and the OneDL mmcv.

    mmagic reads ``np.bool8``, which numpy 2 removed, and refuses mmcv >= 2.2 by its version
    alone. Both stand-ins exist only inside the context.
    """
    import mmcv

    numpy: Any = importlib.import_module('numpy')
    version = mmcv.__version__
    add_bool8 = not hasattr(numpy, 'bool8')
    if add_bool8:
        numpy.bool8 = numpy.bool_
    if not _older({'mmcv': version}, 'mmcv', '2.2'):  # mmagic asserts this
        mmcv.__version__ = '2.1.0'
    try:
        yield
    finally:
        mmcv.__version__ = version
        if add_bool8:
            del numpy.bool8


class _MissingOps(ModuleType):
    """Has every operator by name, as mmcv's wrappers check at import; each raises when called."""

    def __init__(self, cause: ImportError) -> None:
        super().__init__('mmcv._ext')
        # Without a loader ``mmcv.utils.check_ops_exist`` keeps answering that there are none.
        self.__spec__ = ModuleSpec('mmcv._ext', loader=None)
        self._cause = cause

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):  # what import machinery and inspect ask of any module
            raise AttributeError(name)

        def missing(*args: Any, **kwargs: Any) -> NoReturn:
            raise RuntimeError(
                f"mmcv's operator {name!r} is compiled and this mmcv has none that load "
                f'({self._cause}): install the full mmcv built for your torch, or choose '
                'a model without it'
            )

        return missing

    # Asked by mmcv's environment report, which is no use of an operator.
    @staticmethod
    def get_compiler_version() -> str:
        return 'n/a'

    get_compiling_cuda_version = get_compiler_version


def allow_own_checkpoints() -> None:
    """Declare as safe to unpickle what mmengine's own checkpoints hold besides tensors.

    That is the message hub's log buffers and the numpy arrays and scalars in them, as numpy 1 and
    numpy 2 name them. Nothing else becomes loadable.
    """
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer

    def history_method(owner: object, name: str) -> Any:
        # A log buffer refers to its statistics by getattr(HistoryBuffer, 'mean'). The real
        # getattr would let a file reach any attribute of anything, so this stands for it.
        if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
            raise UnpicklingError(f'getattr({owner!r}, {name!r}) is not part of a log buffer')
        return getattr(HistoryBuffer, name)

    rebuild: list[Any] = [np.ndarray(0).__reduce__()[0], np.float64(0).__reduce__()[0]]
    dtypes = [type(np.dtype(kind)) for kind in ('f4', 'f8', 'i4', 'i8', 'u1', '?')]
    # All with their names: the OneDL mmengine lists some of the same bare around each load, and
    # takes them from the list again after it.
    torch.serialization.add_safe_globals(
        [(kind, f'{kind.__module__}.{kind.__qualname__}') for kind in (HistoryBuffer, *dtypes)]
        + [(np.ndarray, 'numpy.ndarray'), (np.dtype, 'numpy.dtype')]
        + [(history_method, 'builtins.getattr')]
        + [
            (function, f'{package}.multiarray.{function.__name__}')
            for package in ('numpy.core', 'numpy._core')
            for function in rebuild
        ]
    )


def prepare() -> None:
    """Check the environment and apply fixes; ``import mmcen`` does this once.

    Raises:
        ImportError: the combination of packages is not supported; the text says the fix.
    """
    found = installed_versions()
    problem = find_problem(found)
    if problem is not None:
        raise ImportError(problem)
    provide_ops()
    # mmsegmentation says so of itself, at every model: nobody but its authors could follow
    warnings.filterwarnings('ignore', '``build_loss`` would be deprecated')
    allow_own_checkpoints()
    from .checkpoints import guard_loading

    guard_loading()
    if not is_upstream(found, 'mmseg'):
        # The fork prints here that it does not find its maker's own data sets.
        with redirect_stdout(StringIO()):
            importlib.import_module('mmseg.datasets')
        # where configs such as 'mmseg::segformer/...' are looked for
        importlib.import_module('mmengine.config.utils').MODULE2PACKAGE['mmseg'] = (
            'onedl-mmsegmentation'
        )
