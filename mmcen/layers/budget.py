"""Exchange under a budget: the share of the channels is given, which ones is learned."""

from collections.abc import Sequence

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from .exchange_norm import ExchangeNorm
from .norms import exchange_norms

CRITERIA = ('fixed', 'gamma', 'ratio', 'movement')
SCOPES = ('layer', 'network')


class ExchangeBudget:
    """Choose the channels that each stream takes from the others, as many as a budget allows.

    Args:
        model: with norms of ``select='budget'``.
        share: of all C channels of a stream, on average over the layers; at most 1 / streams.
        criterion: which channels go first. ``'fixed'``: evenly spread, never changed;
            ``'gamma'``: the smallest ``|gamma|`` of the layer; ``'ratio'``: the smallest ``|gamma|``
            relative to the other streams' of the same channel; ``'movement'``: those whose exchange
            lowers the loss most, to first order: minus the sum over pixels of gradient times
            (others - own), in units of its noise.
        scope: rank within each ``'layer'``, or over the whole ``'network'``.
        begin, end: parts of the training, 0..1, between which channels are chosen again; before
            ``begin`` the choice is that of the start, after ``end`` that of the end.
        interval: steps between two choices.
        memory: steps over which effects are averaged.
        ramp: share at the start, which grows linearly to ``share`` until ``end``; None for
            ``share`` from the first step.
        stay: hysteresis: how much higher the rank value of a channel outside must be, in standard
            deviations of the layer's values.
        first: the choice before ``begin``: ``'fixed'``, ``'gamma'`` or ``'none'``.

    Raises:
        ValueError: an unknown word, a share beyond what the sub-parts allow, or no such norm.
    """

    def __init__(
        self,
        model: nn.Module,
        share: float = 0.3,
        criterion: str = 'movement',
        scope: str = 'layer',
        begin: float = 0.1,
        end: float = 0.75,
        interval: int = 20,
        memory: int = 50,
        ramp: float | None = None,
        stay: float = 0.0,
        first: str = 'fixed',
    ) -> None:
        self.norms = [norm for _, norm in exchange_norms(model) if norm.select == 'budget']
        if not self.norms:
            raise ValueError("no norm has select='budget': give it in norm_cfg")
        self.share, self.criterion, self.scope = share, criterion, scope
        self.begin, self.end, self.interval = begin, end, interval
        self.memory, self.ramp, self.stay, self.first = memory, ramp, stay, first
        self.churn = 0.0  # share of the exchanged channels that the last choice changed

    def start(self) -> None:
        """The choice before the first step."""
        for norm in self.norms:
            if self.criterion == 'movement':
                norm.watch_decay = 1 - 1 / self.memory
            if self.first == 'none':
                norm.fixed.zero_()
            elif self.first == 'gamma':
                norm.fixed.copy_(_best([-norm.gamma().detach().abs()], [norm], self._at(0.0))[0])

    def _at(self, progress: float) -> float:
        if self.ramp is None:
            return self.share
        return self.ramp + (self.share - self.ramp) * min(1.0, progress / self.end)

    @torch.no_grad()
    def step(self, iteration: int, total: int) -> None:
        """Choose again if it is time to; called after each optimizer step."""
        progress = iteration / total
        if self.criterion == 'fixed' or not self.begin <= progress <= self.end:
            if progress > self.end:
                for norm in self.norms:
                    norm.watch_decay = None
            return
        if iteration % self.interval:
            return
        values = [self._values(norm) for norm in self.norms]
        masks = _best(values, self.norms, self._at(progress), self.scope == 'network')
        changed = sum(int((m & ~n.fixed).sum()) for m, n in zip(masks, self.norms, strict=True))
        self.churn = changed / max(1, sum(int(mask.sum()) for mask in masks))
        for norm, mask in zip(self.norms, masks, strict=True):
            norm.fixed.copy_(mask)

    def _values(self, norm: ExchangeNorm) -> Tensor:
        """Higher goes first, (T, M, C)."""
        gamma = norm.gamma().detach().abs()
        if self.criterion == 'gamma':
            values = -gamma
        elif self.criterion == 'ratio':
            dim = norm.grid.dim(norm.axis) - 1
            others = (gamma.sum(dim, keepdim=True) - gamma) / (norm.grid.length(norm.axis) - 1)
            values = -gamma / (others + 1e-6)
        else:
            effects = norm.effects.clone()
            all_reduce(effects, 'mean')
            values = -effects[0] / (effects[1].sqrt() + 1e-12)
        own = values[norm.exchangeable]
        return values + self.stay * own.std() * norm.fixed


def _best(
    values: Sequence[Tensor], norms: Sequence[ExchangeNorm], share: float, across: bool = False
) -> list[Tensor]:
    """Masks of the channels with the highest values, ``share`` of all channels of each stream."""
    if not across:
        return [_top(value, norm.exchangeable, share) for value, norm in zip(values, norms)]
    joined = torch.cat(list(values), -1)  # (T, M, all channels)
    region = torch.cat([norm.exchangeable for norm in norms], -1)
    mask = _top(joined, region, share)
    return list(mask.split([value.shape[-1] for value in values], -1))


def _top(value: Tensor, region: Tensor, share: float) -> Tensor:
    count = torch.clamp(region.sum(-1), max=round(share * region.shape[-1]))  # (T, M)
    outside = value.masked_fill(~region, -torch.inf)
    order = torch.argsort(outside, dim=-1, descending=True, stable=True)
    rank = order.argsort(-1)
    return (rank < count[..., None]) & region
