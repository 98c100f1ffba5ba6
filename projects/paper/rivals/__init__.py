"""Methods that the paper compares CEN with, and ablations of CEN, registered for config files."""

from .ablations import AblatedEncoderDecoder, AblatedUNet
from .consistency import CrossTaskConsistency
from .fusion import AlignFusion, AverageFusion, CBNFusion, ConcatFusion, SelfAttentionFusion
from .generators import AdaShareUNet, FusionUNet, UnsharedUNet
from .policy_hook import PolicyHook
from .segmentors import FusionEncoderDecoder, UnsharedEncoderDecoder
from .translators import AdaShareTranslator, FusionTranslator, XTCTranslator

__all__ = [
    'AblatedEncoderDecoder',
    'AblatedUNet',
    'AdaShareTranslator',
    'AdaShareUNet',
    'AlignFusion',
    'AverageFusion',
    'CBNFusion',
    'ConcatFusion',
    'CrossTaskConsistency',
    'FusionEncoderDecoder',
    'FusionTranslator',
    'FusionUNet',
    'PolicyHook',
    'SelfAttentionFusion',
    'UnsharedEncoderDecoder',
    'UnsharedUNet',
    'XTCTranslator',
]
