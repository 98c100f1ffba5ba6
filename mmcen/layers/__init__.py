from .exchange_norm import CENBN, CENIN, CENSyncBN, ExchangeNorm
from .learned_per_task import LearnedPerTask, SharingPolicy, find_policy
from .norms import check_private_norms, exchange_norms, exchanged_shares, set_grid
from .per_task import PerTask
from .stream_ensemble import StreamEnsemble

__all__ = [
    'CENBN',
    'CENIN',
    'CENSyncBN',
    'ExchangeNorm',
    'LearnedPerTask',
    'PerTask',
    'SharingPolicy',
    'StreamEnsemble',
    'check_private_norms',
    'exchange_norms',
    'exchanged_shares',
    'find_policy',
    'set_grid',
]
