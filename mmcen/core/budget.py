"""Exchange under a budget: the share of the channels is given, which ones is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .functional import top_channels
from .norm import ExchangeNorm
from .selection import Budget

CRITERIA = ('fixed', 'gamma', 'ratio', 'movement')
SCOPES = ('layer', 'network')
FIRST = ('fixed', 'gamma', 'none')


class ExchangeBudget:
    """Choose the channels that each stream takes from the others, as many as a budget allows.

    Args:
        model: With norms whose selection is a :class:`~mmcen.core.Budget`.
        share: Share of all C channels of a stream, on average over the layers; at most
            1 / streams. None takes that of the norms.
        criterion: Which channels go first. ``'fixed'``: evenly spread, never changed;
            ``'gamma'``: the smallest ``|gamma|`` of the layer; ``'ratio'``: the smallest
            ``|gamma|`` relative to the other streams' of the same channel; ``'movement'``: those
            whose exchange lowers the loss most, to first order: minus the sum over pixels of
            gradient times (others - own), in units of its noise.
        scope: Rank within each ``'layer'``, or over the whole ``'network'``.
        begin, end: Parts of the training, 0..1, between which channels are chosen again.
        interval: Steps between two choices.
        memory: Steps over which effects are averaged.
        ramp: Share at the start, which grows linearly to ``share`` until ``end``; None for
            ``share`` from the first step.
        stay: Hysteresis: how much higher the value of a channel outside must be, in standard
            deviations of the layer's values.
        first: The choice before ``begin``: ``'fixed'``, ``'gamma'`` or ``'none'``.

    Raises:
        ValueError: If a word is unknown, or no norm exchanges under a budget.
    """

    def __init__(
        self,
        model: nn.Module,
        share: float | None = None,
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
        norms = [m for m in model.modules() if isinstance(m, ExchangeNorm) and m.exchanges]
        self.norms = [norm for norm in norms if isinstance(norm.selection, Budget)]
        if not self.norms:
            raise ValueError("no norm exchanges under a budget: give the norms selection='budget'")
        for name, word, words in (
            ('criterion', criterion, CRITERIA), ('scope', scope, SCOPES), ('first', first, FIRST),
        ):  # fmt: skip
            if word not in words:
                raise ValueError(f"{name} must be one of {words}, got '{word}'")
        self.share = _of(self.norms[0]).share if share is None else share
        self.criterion, self.scope = criterion, scope
        self.begin, self.end, self.interval = begin, end, interval
        self.memory, self.ramp, self.stay, self.first = memory, ramp, stay, first
        self.churn = 0.0  # share of the exchanged channels that the last choice changed

    def start(self, progress: float = 0.0) -> None:
        """Prepare the first step of a training, or of one that is resumed.

        Args:
            progress: Part of the training that is done, 0..1.
        """
        self._watch(progress)
        if progress > 0:
            return
        share = self._share_at(0.0)
        for norm in self.norms:
            if self.first == 'none':
                _of(norm).chosen.zero_()
            elif self.first == 'gamma':
                smallest = -norm.gamma().detach().abs()
                _of(norm).chosen.copy_(top_channels(smallest, norm.exchangeable, share))

    def _share_at(self, progress: float) -> float:
        if self.ramp is None:
            return self.share
        return self.ramp + (self.share - self.ramp) * min(1.0, progress / self.end)

    @torch.no_grad()
    def step(self, iteration: int, total: int) -> None:
        """Choose again if it is time to; call it after each optimizer step.

        Args:
            iteration: Steps that are done, from 1.
            total: Steps of the training.
        """
        progress = iteration / total
        self._watch(progress)
        due = self.begin <= progress <= self.end and iteration % self.interval == 0
        if self.criterion == 'fixed' or not due:
            return
        values = [self._values(norm) for norm in self.norms]
        masks = _best(values, self.norms, self._share_at(progress), self.scope == 'network')
        pairs = list(zip(masks, self.norms, strict=True))
        changed = sum(int((mask & ~_of(norm).chosen).sum()) for mask, norm in pairs)
        self.churn = changed / max(1, sum(int(mask.sum()) for mask in masks))
        for mask, norm in pairs:
            _of(norm).chosen.copy_(mask)

    def _watch(self, progress: float) -> None:
        """Have the norms measure effects in the next step, or not."""
        watches = self.criterion == 'movement' and progress <= self.end
        for norm in self.norms:
            _of(norm).memory = self.memory if watches else None

    def _values(self, norm: ExchangeNorm) -> Tensor:
        """Values of the channels, (T, M, C); the highest are exchanged."""
        gamma = norm.gamma().detach().abs()
        if self.criterion == 'gamma':
            values = -gamma
        elif self.criterion == 'ratio':
            dim = norm.grid.dim(norm.axis) - 1
            others = (gamma.sum(dim, keepdim=True) - gamma) / (gamma.shape[dim] - 1)
            values = -gamma / (others + 1e-6)
        else:
            effects = _of(norm).effects.clone()
            if dist.is_available() and dist.is_initialized():
                dist.all_reduce(effects)
            values = -effects[0] / (effects[1].sqrt() + 1e-12)
        spread = values[norm.exchangeable].std()
        return values + self.stay * spread * _of(norm).chosen


def _best(
    values: Sequence[Tensor], norms: Sequence[ExchangeNorm], share: float, across: bool
) -> list[Tensor]:
    """Masks of the channels with the highest values, ``share`` of all channels of each stream."""
    if not across:
        pairs = zip(values, norms, strict=True)
        return [top_channels(value, norm.exchangeable, share) for value, norm in pairs]
    joined = torch.cat(list(values), -1)  # (T, M, all channels)
    region = torch.cat([norm.exchangeable for norm in norms], -1)
    mask = top_channels(joined, region, share)
    return list(mask.split([value.shape[-1] for value in values], -1))


def _of(norm: ExchangeNorm) -> Any:
    """The Budget of a norm."""
    return norm.selection
