"""Exchange under a budget: the share of channels is given, the channels are learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .functional import spread_channels, top_channels
from .norm import ExchangeNorm
from .selection import Budget

CRITERIA = ('fixed', 'gamma', 'ratio', 'movement', 'gates')
COLDEST = 0.1  # temperature of the gates at the end; they start at 1
SCOPES = ('layer', 'network')
FIRST = ('fixed', 'gamma', 'none')


class ExchangeBudget:
    """Choose the channels that each stream takes from the others, as many as a budget allows.

    Args:
        model: Model with norms whose selection is a :class:`~mmcen.core.Budget`.
        share: Share of all C channels of a stream, on average over the layers; at most
            1 / streams. None uses the share of the norms.
        criterion: Which channels go first. ``'fixed'``: evenly spread, never changed;
            ``'gamma'``: the smallest ``|gamma|`` of the layer; ``'ratio'``: the smallest
            ``|gamma|`` relative to the other streams' of the same channel; ``'movement'``: those
            whose exchange lowers the loss most, to first order: minus the sum over pixels of
            gradient times (others - own), in units of its noise; ``'gates'``: those with the
            highest gates, which are trained straight-through with a falling temperature.
        scope: Rank within each ``'layer'``, or over the whole ``'network'``.
        begin: Part of the training, 0..1, after which channels are chosen again.
        end: Part of the training, 0..1, after which the choice stays. There is at least one choice.
        interval: Steps between two choices.
        memory: Steps over which effects are averaged.
        ramp: Share at the start, which grows linearly from ``begin`` to ``share`` at the last
            choice; None for ``share`` from the first step.
        stay: Hysteresis: how much higher the value of a new channel must be than that of a chosen
            one, in standard deviations of the layer's values.
        first: The choice before ``begin``: ``'fixed'``, ``'gamma'`` or ``'none'``.
        shrink: Steps in which the scaling factors of newly chosen channels, and of no others, go to
            zero before these channels are exchanged; at most ``interval``. It does not depend on
            the optimizer (a proximal step). Best with ``first='none'``.

    Raises:
        ValueError: If an option is unknown or outside its range, or no norm exchanges under a
            budget.
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
        shrink: int = 0,
    ) -> None:
        norms = [m for m in model.modules() if isinstance(m, ExchangeNorm) and m.exchanges]
        self.norms = [norm for norm in norms if isinstance(norm.selection, Budget)]
        if not self.norms:
            raise ValueError("no norm exchanges under a budget: give the norms selection='budget'")
        self.share = _common_share(self.norms) if share is None else share
        self.criterion, self.scope = criterion, scope
        self.begin, self.end, self.interval = begin, end, interval
        self.memory, self.ramp, self.stay, self.first = memory, ramp, stay, first
        self.shrink = shrink
        self._check()

    def _check(self) -> None:
        for name, words in (('criterion', CRITERIA), ('scope', SCOPES), ('first', FIRST)):
            word = getattr(self, name)
            if word not in words:
                raise ValueError(f"{name} must be one of {words}, got '{word}'")
        if not 0 <= self.begin <= self.end <= 1:
            raise ValueError(f'0 <= begin <= end <= 1 must hold, got {self.begin} and {self.end}')
        if not 0 <= self.shrink <= self.interval:
            raise ValueError(
                f'shrink must be within 0..interval={self.interval}, got {self.shrink}'
            )
        for norm in self.norms:
            _of(norm).check(self.share)
        if not any(round(self.share * norm.num_features) for norm in self.norms):
            widest = max(norm.num_features for norm in self.norms)
            raise ValueError(
                f'share={self.share} is less than half a channel in every layer, and nothing would '
                f'be exchanged: give at least {1 / widest:.2g}'
            )
        if self.criterion == 'fixed' and (self.ramp is not None or self.first == 'none'):
            raise ValueError(
                "criterion='fixed' never chooses again: leave ramp out, and start with "
                "first='fixed' or 'gamma'"
            )

    @property
    def churn(self) -> float:
        """Share of the exchanged channels that changed place in the last choice, 0..1."""
        budgets = [_of(norm) for norm in self.norms]
        return sum(b.moved for b in budgets) / max(1, sum(int(b.chosen.sum()) for b in budgets))

    def start(self, iteration: int = 0, total: int = 1) -> None:
        """Prepare the first step of a new or resumed training.

        Args:
            iteration: Number of finished steps.
            total: Number of steps of the training.
        """
        self._prepare(iteration, total)
        if iteration > 0:
            return
        for norm in self.norms:
            budget = _of(norm)
            if self.first == 'none':
                budget.chosen.zero_()
            elif self.first == 'gamma':
                smallest = -norm.gamma().detach().abs()
                budget.chosen.copy_(top_channels(smallest, norm.exchangeable, budget.wanted))
            else:
                budget.chosen.copy_(spread_channels(norm.exchangeable, budget.wanted))

    def choices(self, total: int) -> range:
        """Return the steps, counted from 1, after which channels are chosen again.

        Args:
            total: Number of steps of the training.
        """
        if self.criterion == 'fixed':
            return range(0)
        # the small number is for products such as 0.1 * 30, which is a little above 3
        begin, end = math.ceil(self.begin * total - 1e-9), int(self.end * total + 1e-9)
        multiples = range(0, end + 1, self.interval)[math.ceil(max(begin, 1) / self.interval) :]
        return multiples or range(max(1, end), max(1, end) + 1)

    def share_at(self, iteration: int, total: int) -> float:
        """Return the wanted share after a number of steps."""
        choices = self.choices(total)
        if self.first == 'none' and iteration < choices[0]:
            return 0.0
        if self.ramp is None or iteration >= choices[-1]:
            return self.share
        begin = self.begin * total
        part = max(0.0, iteration - begin) / (choices[-1] - begin)
        return self.ramp + (self.share - self.ramp) * part

    @torch.no_grad()
    def step(self, iteration: int, total: int) -> None:
        """Choose channels again at the scheduled steps; call it after each optimizer step.

        Args:
            iteration: Number of finished steps, from 1.
            total: Number of steps of the training.
        """
        self._prepare(iteration, total)
        choices = self.choices(total)
        if iteration in choices:
            self._choose(self.share_at(iteration, total))
        if self.shrink and choices and iteration >= choices[0]:
            last = choices[min(len(choices) - 1, (iteration - choices[0]) // choices.step)]
            self._shrink(min(self.shrink, total - last) - (iteration - last))

    def _choose(self, share: float) -> None:
        values = [self._values(norm) for norm in self.norms]
        masks = _best(values, self.norms, share, self.scope == 'network')
        for mask, norm in zip(masks, self.norms, strict=True):
            _of(norm).choose(mask, later=self.shrink > 0)

    def _shrink(self, left: int) -> None:
        """Shrink the scaling factors of new channels by one step, and exchange those at zero.

        Args:
            left: Number of steps that follow.
        """
        for norm in self.norms if left >= 0 else ():
            budget, gamma = _of(norm), norm.gamma()
            if left < self.shrink:
                gamma.copy_(torch.where(budget.leaving, gamma * left / (left + 1), gamma))
            if left == 0:
                budget.exchange_leaving()

    def _prepare(self, iteration: int, total: int) -> None:
        """Set the wanted share of the norms, and whether they measure effects in the next step."""
        watches = self.criterion in ('movement', 'gates') and iteration <= self.end * total
        cooling = COLDEST ** min(1.0, iteration / max(1.0, self.end * total))
        for norm in self.norms:
            _of(norm).temperature = cooling if self.criterion == 'gates' else None
            _of(norm).wanted = self.share_at(iteration, total)
            _of(norm).memory = self.memory if watches else None

    def _values(self, norm: ExchangeNorm) -> Tensor:
        """Return a value for each channel, (T, M, C); the highest ones are exchanged."""
        gamma = norm.gamma().detach().abs()
        if self.criterion == 'gamma':
            values = -gamma
        elif self.criterion == 'ratio':
            dim = norm.grid.dim(norm.axis) - 1
            others = (gamma.sum(dim, keepdim=True) - gamma) / (gamma.shape[dim] - 1)
            values = -gamma / (others + 1e-6)
        elif self.criterion == 'gates':
            values = _over_processes(_of(norm).gates)
        else:
            effects = _over_processes(_of(norm).effects)
            values = -effects[0] / (effects[1].sqrt() + 1e-12)
        spread = values[norm.exchangeable].std()
        return values + self.stay * spread * _of(norm).chosen


def _best(
    values: Sequence[Tensor], norms: Sequence[ExchangeNorm], share: float, across: bool
) -> list[Tensor]:
    """Return masks of the channels with the highest values, ``share`` of each stream's channels."""
    if not across:
        pairs = zip(values, norms, strict=True)
        return [top_channels(value, norm.exchangeable, share) for value, norm in pairs]
    joined = torch.cat(list(values), -1)  # (T, M, all channels)
    region = torch.cat([norm.exchangeable for norm in norms], -1)
    mask = top_channels(joined, region, share)
    return list(mask.split([value.shape[-1] for value in values], -1))


def _over_processes(value: Tensor) -> Tensor:
    """Return the sum over all processes, as a copy."""
    value = value.clone()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(value)
    return value


def _common_share(norms: Sequence[ExchangeNorm]) -> float:
    shares = sorted({_of(norm).share for norm in norms})
    if len(shares) > 1:
        raise ValueError(f'norms have budgets of {shares}: give ExchangeBudget the share')
    return shares[0]


def _of(norm: ExchangeNorm) -> Any:
    """Return the Budget of a norm."""
    return norm.selection
