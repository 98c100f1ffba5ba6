"""What a model asks of its norms: which exchange, and how much."""

from collections.abc import Iterator

from torch import Tensor, nn

from ..core.norm import ExchangeNorm


def exchange_norms(model: nn.Module) -> Iterator[tuple[str, ExchangeNorm]]:
    """Names and layers of all norms that exchange and are penalised, in order."""
    for name, module in model.named_modules():
        if isinstance(module, ExchangeNorm) and module.exchanges:
            yield name, module


def exchanged_shares(model: nn.Module) -> dict[str, Tensor]:
    """Share of replaced channels by layer: name to (T, M) in 0..1, of all C channels of a
    stream."""
    return {name: norm.exchange_mask().float().mean(-1) for name, norm in exchange_norms(model)}
