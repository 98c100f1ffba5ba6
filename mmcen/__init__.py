"""mmcen: Channel Exchanging Networks for OpenMMLab.

The method is in :mod:`mmcen.core` and needs torch alone. Where mmengine is installed, importing
mmcen registers its types in mmengine's root registries.
"""

import importlib
import importlib.util
import multiprocessing
import sys
from pathlib import Path

from . import core
from .core import ExchangeNorm, StreamGrid, convert
from .version import __version__

__all__ = ['ExchangeNorm', 'StreamGrid', '__version__', 'convert', 'core', 'register']

_PARTS = ('datasets', 'engine', 'evaluation', 'layers', 'models')


def register() -> None:
    """Register mmcen's types in mmengine's root registries; ``import mmcen`` does this.

    Raises:
        ImportError: If the installed packages do not work together; the message names the fix.
    """
    from . import compat

    compat.prepare()  # decides whether mmseg can be imported at all
    for part in _PARTS:
        importlib.import_module(f'.{part}', __name__)


def _is_console_script() -> bool:
    """Whether the console script imports mmcen: it registers later.

    ``mmcen doctor`` must start where OpenMMLab is broken. Worker processes inherit ``sys.argv``
    and register as usual.
    """
    by_module = sys.argv[:1] == ['-m'] and sys.orig_argv[1:3] == ['-m', 'mmcen']
    by_name = Path(sys.argv[0]).stem == 'mmcen' if sys.argv else False
    return (by_module or by_name) and multiprocessing.parent_process() is None


if importlib.util.find_spec('mmengine') and not _is_console_script():
    register()
