from .backbones import *
from .data_preprocessor import CENDataPreprocessor
from .decode_heads import *
from .segmentors import CENEncoderDecoder, CENSegTTAModel

__all__ = ['CENDataPreprocessor', 'CENEncoderDecoder', 'CENSegTTAModel']
