"""Training under a budget of exchanged channels, in plain PyTorch."""

from .budget import ExchangeBudget
from .schedule import BudgetSchedule

__all__ = ['BudgetSchedule', 'ExchangeBudget']
