from .check_classes_hook import CheckClassesHook
from .epoch_seed_hook import EpochSeedHook, seed_worker
from .exchange_budget_hook import ExchangeBudgetHook
from .exchange_monitor_hook import ExchangeMonitorHook
from .finite_loss_hook import FiniteLossHook
from .last_and_best_hook import LastAndBestHook
from .pseudo_label_hook import PseudoLabelHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .sheet_hook import SheetHook
from .sparsity_hook import SparsityHook

__all__ = [
    'CheckClassesHook',
    'EpochSeedHook',
    'ExchangeBudgetHook',
    'ExchangeMonitorHook',
    'FiniteLossHook',
    'LastAndBestHook',
    'PseudoLabelHook',
    'SafeCheckpointHook',
    'SheetHook',
    'SparsityHook',
    'seed_worker',
]
