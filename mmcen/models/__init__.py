"""Models of OpenMMLab over a stream grid."""

from .backbones import CENResNet, CENTIMMBackbone
from .data_preprocessor import CENDataPreprocessor
from .decode_heads import RefineNetHead
from .generators import CENUNetGenerator
from .multitask import (
    CENDenseNetwork,
    CENMultiTask,
    ClassHead,
    ImageHead,
)
from .segmentors import CENEncoderDecoder, CENSaliency, CENSegTTAModel
from .translators import CENTranslator

__all__ = [
    'CENDataPreprocessor',
    'CENDenseNetwork',
    'CENEncoderDecoder',
    'CENMultiTask',
    'CENResNet',
    'CENSaliency',
    'CENSegTTAModel',
    'CENTIMMBackbone',
    'CENTranslator',
    'CENUNetGenerator',
    'ClassHead',
    'ImageHead',
    'RefineNetHead',
]
