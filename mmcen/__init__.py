"""mmcen: Channel Exchanging Networks for OpenMMLab.

The method is in :mod:`mmcen.core` and needs torch alone. Where mmengine is installed, importing
mmcen registers its types in mmengine's root registries.
"""

import importlib.util
import sys

from . import core
from .core import ExchangeNorm, StreamGrid, convert
from .version import __version__

__all__ = ['ExchangeNorm', 'StreamGrid', '__version__', 'convert', 'core']

# `python -m mmcen.doctor` looks at environments too, in which nothing else can be imported
_is_doctor = sys.argv[:1] == ['-m'] and 'mmcen.doctor' in sys.orig_argv
if importlib.util.find_spec('mmengine') and not _is_doctor:
    from . import compat

    compat.prepare()  # decides whether mmseg can be imported at all
    from . import datasets, engine, evaluation, layers, models

    __all__ += ['compat', 'datasets', 'engine', 'evaluation', 'layers', 'models']
