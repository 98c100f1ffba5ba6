from ..core.ensemble import StreamEnsemble
from ..core.norm import ExchangeNorm
from .cen_norms import CENBN, CENIN, CENNorm, CENSyncBN
from .fusion import (
    AlignFusion,
    AverageFusion,
    CBNFusion,
    ConcatFusion,
    SelfAttentionFusion,
    fusion_losses,
)
from .learned_per_task import LearnedPerTask, SharingPolicy, find_policy
from .norms import (
    check_private_norms,
    exchange_only,
    set_grid,
    single_stream,
)
from .per_task import PerTask, private_copies, unshare

__all__ = [
    'CENBN',
    'CENIN',
    'AlignFusion',
    'AverageFusion',
    'CBNFusion',
    'CENNorm',
    'CENSyncBN',
    'ConcatFusion',
    'ExchangeNorm',
    'LearnedPerTask',
    'PerTask',
    'SelfAttentionFusion',
    'SharingPolicy',
    'StreamEnsemble',
    'check_private_norms',
    'exchange_only',
    'find_policy',
    'fusion_losses',
    'private_copies',
    'set_grid',
    'single_stream',
    'unshare',
]
