"""The method, in plain PyTorch: it needs nothing else."""

from .convert import convert, convert_norm, find_norms
from .ensemble import StreamEnsemble
from .functional import exchange, soft_threshold, sparsity_penalty, sparsity_subgradient, sub_parts
from .grid import AXES, StreamGrid
from .measure import (
    check_some_exchanged,
    exchange_norms,
    exchange_penalty,
    exchanged_share,
    exchanged_shares,
)
from .norm import ExchangeNorm
from .private import PrivateCopies
from .selection import Budget, Fixed, Random, Selection, Threshold

__all__ = [
    'AXES',
    'Budget',
    'ExchangeNorm',
    'Fixed',
    'PrivateCopies',
    'Random',
    'Selection',
    'StreamEnsemble',
    'StreamGrid',
    'Threshold',
    'check_some_exchanged',
    'convert',
    'convert_norm',
    'exchange',
    'exchange_norms',
    'exchange_penalty',
    'exchanged_share',
    'exchanged_shares',
    'find_norms',
    'soft_threshold',
    'sparsity_penalty',
    'sparsity_subgradient',
    'sub_parts',
]
