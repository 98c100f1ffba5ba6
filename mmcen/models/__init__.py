from .backbones import CENResNet
from .data_preprocessor import CENDataPreprocessor
from .decode_heads import RefineNetHead
from .segmentors import CENEncoderDecoder, CENSegTTAModel

__all__ = [
    'CENDataPreprocessor',
    'CENEncoderDecoder',
    'CENResNet',
    'CENSegTTAModel',
    'RefineNetHead',
]
