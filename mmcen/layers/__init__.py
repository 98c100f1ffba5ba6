from .exchange_norm import CENBN, CENIN, CENSyncBN, ExchangeNorm
from .stream_ensemble import StreamEnsemble

__all__ = ['CENBN', 'CENIN', 'CENSyncBN', 'ExchangeNorm', 'StreamEnsemble']
