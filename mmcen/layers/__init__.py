from ..core.ensemble import StreamEnsemble
from ..core.norm import ExchangeNorm
from .cen_norms import CENBN, CENIN, CENLN, CENNorm, CENSyncBN
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
]
