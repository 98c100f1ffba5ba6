from .amp import BFloat16OptimWrapper
from .exported import ExportedModel
from .hooks import (
    CheckClassesHook,
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
    'CheckClassesHook',
    'EpochSeedHook',
    'ExchangeBudgetHook',
    'ExchangeMonitorHook',
    'ExportedModel',
    'LastAndBestHook',
    'ListedLR',
    'PseudoLabelHook',
    'SheetHook',
    'SparsityHook',
    'seed_worker',
]
