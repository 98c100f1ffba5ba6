from .amp import BFloat16OptimWrapper
from .hooks import (
    EpochSeedHook,
    ExchangeBudgetHook,
    ExchangeMonitorHook,
    LastAndBestHook,
    PseudoLabelHook,
    SheetHook,
    SparsityHook,
    seed_worker,
)
from .listed_lr import ListedLR

__all__ = [
    'BFloat16OptimWrapper',
    'EpochSeedHook',
    'ExchangeBudgetHook',
    'ExchangeMonitorHook',
    'LastAndBestHook',
    'ListedLR',
    'PseudoLabelHook',
    'SheetHook',
    'SparsityHook',
    'seed_worker',
]
