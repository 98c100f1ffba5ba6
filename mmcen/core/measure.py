"""What a converted network exchanges: its exchanging norms, their shares, and the penalty."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from .functional import sparsity_penalty
from .norm import ExchangeNorm
from .selection import Budget


def exchange_norms(network: nn.Module) -> Iterator[tuple[str, ExchangeNorm]]:
    """Yield names and layers of all norms that exchange, in order."""
    for name, module in network.named_modules():
        if isinstance(module, ExchangeNorm) and module.exchanges:
            yield name, module


def exchanged_shares(network: nn.Module) -> dict[str, Tensor]:
    """Return the share of replaced channels by layer.

    Returns:
        Name of an exchanging norm to ``(T, M)`` in 0..1, of all C channels of a stream.
    """
    return {name: norm.exchange_mask().float().mean(-1) for name, norm in exchange_norms(network)}


def exchanged_share(network: nn.Module) -> Tensor:
    """Return the share of replaced channels over all exchanging norms, ``(T, M)`` in 0..1.

    Raises:
        ValueError: If no norm exchanges.

    Examples:
        >>> from mmcen import convert
        >>> block = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8))
        >>> exchanged_share(convert(block, modalities=2, budget=0.25))
        tensor([[0.2500, 0.2500]])
    """
    masks = [norm.exchange_mask() for _, norm in exchange_norms(network)]
    if not masks:
        raise ValueError(f'no norm of {type(network).__name__} exchanges: convert it first')
    return torch.cat(masks, -1).float().mean(-1)


def check_some_exchanged(norms: Sequence[ExchangeNorm], share: float | None = None) -> None:
    """Check that a budget is not less than half a channel in every layer.

    Args:
        norms: Norms; those that do not exchange under a budget are left out.
        share: The budget; None for that of each norm.

    Raises:
        ValueError: If nothing would be exchanged.
    """
    pairs = [
        (norm.num_features, norm.selection.share if share is None else share)
        for norm in norms
        if norm.exchanges and isinstance(norm.selection, Budget)
    ]
    if pairs and not any(round(part * width) for width, part in pairs):
        raise ValueError(
            f'share={max(part for _, part in pairs)} is less than half a channel in every layer, '
            f'and nothing would be exchanged: give at least {1 / max(pairs)[0]:.2g}'
        )


def exchange_penalty(network: nn.Module) -> Tensor:
    """Return the sparsity penalty of Eq. 2 without its lambda, a scalar.

    It is the sum of ``|gamma|`` over the penalised channels of all exchanging norms. It is 0 under
    a budget, which has no penalty.
    """
    norms = [norm for _, norm in exchange_norms(network)]
    return sum((sparsity_penalty(n.gamma(), n.penalised) for n in norms), torch.zeros(()))
