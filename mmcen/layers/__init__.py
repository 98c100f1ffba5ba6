from .exchange_norm import CENBN, CENIN, CENSyncBN, ExchangeNorm
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
    exchange_norms,
    exchange_only,
    exchanged_shares,
    set_grid,
    single_stream,
)
from .per_task import PerTask, private_copies, unshare
from .stream_ensemble import StreamEnsemble

__all__ = [
    'CENBN',
    'CENIN',
    'AlignFusion',
    'AverageFusion',
    'CBNFusion',
    'CENSyncBN',
    'ConcatFusion',
    'ExchangeNorm',
    'LearnedPerTask',
    'PerTask',
    'SelfAttentionFusion',
    'SharingPolicy',
    'StreamEnsemble',
    'check_private_norms',
    'exchange_norms',
    'exchange_only',
    'exchanged_shares',
    'find_policy',
    'fusion_losses',
    'private_copies',
    'set_grid',
    'single_stream',
    'unshare',
]
