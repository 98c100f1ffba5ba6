"""mmcen: Channel Exchanging Networks for OpenMMLab. Importing it registers its types in mmengine's
root registries."""

from . import compat  # isort: skip  # first: it decides whether mmseg can be imported at all
from . import datasets, engine, evaluation, layers, models
from .version import __version__

__all__ = ['__version__', 'compat', 'datasets', 'engine', 'evaluation', 'layers', 'models']
