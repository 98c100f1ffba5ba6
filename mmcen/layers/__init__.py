from ..core.ensemble import StreamEnsemble
from ..core.norm import ExchangeNorm
from .cen_norms import CENBN, CENIN, CENLN, CENNorm, CENSyncBN
from .norms import exchange_norms, exchanged_shares
from .per_task import PerTask

__all__ = [
    'CENBN',
    'CENIN',
    'CENLN',
    'CENNorm',
    'CENSyncBN',
    'ExchangeNorm',
    'PerTask',
    'StreamEnsemble',
    'exchange_norms',
    'exchanged_shares',
]
