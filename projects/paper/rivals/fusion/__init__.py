from .align import AlignFusion, fusion_losses
from .base import Fusion, check_merge, check_places, first_modality
from .layers import AverageFusion, CBNFusion, ConcatFusion, SelfAttentionFusion

__all__ = [
    'AlignFusion',
    'AverageFusion',
    'CBNFusion',
    'ConcatFusion',
    'Fusion',
    'SelfAttentionFusion',
    'check_merge',
    'check_places',
    'first_modality',
    'fusion_losses',
]
