from .cen_multitask import CENMultiTask
from .consistency import CrossTaskConsistency
from .dense_network import CENDenseNetwork
from .heads import ClassHead, ImageHead

__all__ = ['CENDenseNetwork', 'CENMultiTask', 'ClassHead', 'CrossTaskConsistency', 'ImageHead']
