"""mmcen: Channel Exchanging Networks for OpenMMLab. Importing it registers its types in mmengine's
root registries."""

import sys

from . import compat
from .version import __version__

__all__ = ['__version__', 'compat', 'datasets', 'engine', 'evaluation', 'layers', 'models']

# `python -m mmcen.doctor` looks at environments too, in which nothing else can be imported
if sys.argv[:1] != ['-m'] or 'mmcen.doctor' not in sys.orig_argv:
    compat.prepare()  # decides whether mmseg can be imported at all
    from . import datasets, engine, evaluation, layers, models
