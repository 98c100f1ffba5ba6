from .exchange_norm import CENBN, CENIN, CENSyncBN, ExchangeNorm
from .norms import check_private_norms, exchange_norms, exchanged_shares, set_grid
from .per_task import PerTask
from .stream_ensemble import StreamEnsemble

__all__ = [
    'CENBN',
    'CENIN',
    'CENSyncBN',
    'ExchangeNorm',
    'PerTask',
    'StreamEnsemble',
    'check_private_norms',
    'exchange_norms',
    'exchanged_shares',
    'set_grid',
]
