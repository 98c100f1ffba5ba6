"""Several tasks on one stream grid."""

from .cen_multitask import CENMultiTask
from .dense_network import CENDenseNetwork
from .heads import ClassHead, ImageHead

__all__ = ['CENDenseNetwork', 'CENMultiTask', 'ClassHead', 'ImageHead']
