from .amp import BFloat16OptimWrapper
from .hooks import EpochSeedHook, ExchangeMonitorHook, LastAndBestHook, SparsityHook, seed_worker
from .listed_lr import ListedLR

__all__ = [
    'BFloat16OptimWrapper',
    'EpochSeedHook',
    'ExchangeMonitorHook',
    'LastAndBestHook',
    'ListedLR',
    'SparsityHook',
    'seed_worker',
]
