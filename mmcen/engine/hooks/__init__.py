from .epoch_seed_hook import EpochSeedHook, seed_worker
from .exchange_monitor_hook import ExchangeMonitorHook
from .last_and_best_hook import LastAndBestHook
from .sparsity_hook import SparsityHook

__all__ = [
    'EpochSeedHook',
    'ExchangeMonitorHook',
    'LastAndBestHook',
    'SparsityHook',
    'seed_worker',
]
