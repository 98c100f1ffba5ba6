from .backbones import *  # noqa: F401, F403
from .data_preprocessor import CENDataPreprocessor
from .decode_heads import *  # noqa: F401, F403
from .segmentors import CENEncoderDecoder, CENSegTTAModel

__all__ = ['CENDataPreprocessor', 'CENEncoderDecoder', 'CENSegTTAModel']
