"""Exchange under a budget: the share of channels is given, the channels are learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..core import Budget, ExchangeNorm, check_some_exchanged
from ..core.functional import spread_channels, top_channels
from .schedule import BudgetSchedule, check_word

CRITERIA = ('fixed', 'gamma', 'ratio', 'movement', 'gates')
COLDEST = 0.1  # temperature of the gates at the end; they start at 1
SCOPES = ('layer', 'network')


class ExchangeBudget:
    """Choose the channels that each stream takes from the others, as many as a budget allows.

    Args:
        model: Model with norms whose selection is a :class:`~mmcen.core.Budget`.
        share: Share of all C channels of a stream, on average over the layers; at most
            1 / streams. None uses the share of the norms.
        criterion: Which channels go first. ``'fixed'``: evenly spread, never changed;
            ``'gamma'``: the smallest ``|gamma|``, relative to the median of the layer; ``'ratio'``:
            the smallest ``|gamma|`` relative to the other streams' of the same channel;
            ``'movement'``: those whose exchange lowers the loss most, to first order: minus the sum
            over pixels of gradient times (others - own), in units of its noise; ``'gates'``: those
            with the highest gates, which are trained straight-through with a falling temperature.
            A channel without a measured effect, as in a frozen layer, counts as one of no effect.
        scope: Rank within each ``'layer'``, or over the whole ``'network'``.
        memory: Steps over which effects are averaged.
        stay: Hysteresis: how much higher the value of a new channel must be than that of a chosen
            one, in standard deviations of the layer's values. At 0, chosen channels win ties.
        schedule: When channels are chosen; None for the defaults of :class:`BudgetSchedule`.

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
        memory: int = 50,
        stay: float = 0.0,
        schedule: BudgetSchedule | None = None,
    ) -> None:
        norms = [m for m in model.modules() if isinstance(m, ExchangeNorm) and m.exchanges]
        self.norms = [norm for norm in norms if isinstance(norm.selection, Budget)]
        if not self.norms:
            raise ValueError("no norm exchanges under a budget: give the norms selection='budget'")
        self.share = _common_share(self.norms) if share is None else share
        self.criterion, self.scope = criterion, scope
        self.memory, self.stay = memory, stay
        self.schedule = schedule or BudgetSchedule()
        self._check()

    def _check(self) -> None:
        check_word('criterion', self.criterion, CRITERIA)
        check_word('scope', self.scope, SCOPES)
        for norm in self.norms:
            _of(norm).check(self.share)
        check_some_exchanged(self.norms, self.share)
        schedule = self.schedule
        if schedule.ramp:  # it may begin at 0
            for norm in self.norms:
                _of(norm).check(schedule.ramp)
        if self.criterion == 'fixed' and (schedule.ramp is not None or schedule.first == 'none'):
            raise ValueError(
                "criterion='fixed' never chooses again: leave ramp out, and start with "
                "first='fixed' or 'gamma'"
            )

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
            for state in (budget.effects, budget.gates, budget.leaving):
                state.zero_()  # of an earlier training
            if self.schedule.first == 'keep':
                continue
            if self.schedule.first == 'none':
                budget.chosen.zero_()
            elif self.schedule.first == 'gamma':
                smallest = -norm.gamma().detach().abs()
                budget.chosen.copy_(top_channels(smallest, norm.exchangeable, budget.wanted))
            else:
                budget.chosen.copy_(spread_channels(norm.exchangeable, budget.wanted))

    @torch.no_grad()
    def step(self, iteration: int, total: int) -> None:
        """Choose channels again at the scheduled steps; call it after each optimizer step.

        Args:
            iteration: Number of finished steps, from 1.
            total: Number of steps of the training.
        """
        self._average_over_processes()
        self._prepare(iteration, total)
        if self.criterion == 'fixed':
            return
        if iteration in self.schedule.choices(total):
            self._shrink(0)  # new channels of the last choice, where shrinking takes the interval
            self._choose(self.schedule.share_at(self.share, iteration, total))
        left = self.schedule.steps_to_zero(iteration, total)
        if left is not None:
            self._shrink(left)

    def _choose(self, share: float) -> None:
        values = [self._values(norm) for norm in self.norms]
        masks = _best(values, self.norms, share, self.scope == 'network')
        for mask, norm in zip(masks, self.norms, strict=True):
            _of(norm).choose(mask, later=self.schedule.shrink > 0)

    def _shrink(self, left: int) -> None:
        """Shrink the scaling factors of new channels by one step, and exchange those at zero.

        Args:
            left: Number of steps that follow.
        """
        for norm in self.norms:
            budget, gamma = _of(norm), norm.gamma()
            if left < self.schedule.shrink:
                gamma.copy_(torch.where(budget.leaving, gamma * left / (left + 1), gamma))
            if left == 0:
                budget.exchange_leaving()

    def _prepare(self, iteration: int, total: int) -> None:
        """Set the wanted share of the norms, and whether they measure effects in the next step."""
        last = self.schedule.choices(total)[-1]
        watches = self.criterion in ('movement', 'gates') and iteration < last
        cooling = COLDEST ** min(1.0, iteration / last)
        wanted = self.schedule.share_at(self.share, iteration, total)
        for norm in self.norms:
            _of(norm).temperature = cooling if self.criterion == 'gates' else None
            _of(norm).wanted = wanted
            _of(norm).memory = self.memory if watches else None

    def _average_over_processes(self) -> None:
        """Average what was measured, so that all choose alike and one checkpoint is of all."""
        if not (dist.is_available() and dist.is_initialized()) or _of(self.norms[0]).memory is None:
            return
        measured = [t for norm in self.norms for t in (_of(norm).effects, _of(norm).gates)]
        flat = torch.cat([t.flatten() for t in measured])
        dist.all_reduce(flat)
        parts = (flat / dist.get_world_size()).split([t.numel() for t in measured])
        for state, part in zip(measured, parts, strict=True):
            state.copy_(part.view_as(state))

    def _values(self, norm: ExchangeNorm) -> Tensor:
        """Return a value for each channel, (T, M, C); the highest ones are exchanged."""
        gamma = norm.gamma().detach().abs()
        if self.criterion == 'gamma':
            values = -gamma / (gamma.median() + 1e-12)
        elif self.criterion == 'ratio':
            dim = norm.grid.dim(norm.axis) - 1
            others = (gamma.sum(dim, keepdim=True) - gamma) / (gamma.shape[dim] - 1)
            values = -gamma / (others + 1e-6)
        elif self.criterion == 'gates':
            values = _of(norm).gates
        else:
            mean, square = _of(norm).effects
            values = -mean / (square.sqrt() + 1e-12)
        spread = values[norm.exchangeable].std()
        return values + (self.stay * spread + 1e-6) * _of(norm).chosen


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


def _common_share(norms: Sequence[ExchangeNorm]) -> float:
    shares = sorted({_of(norm).share for norm in norms})
    if len(shares) > 1:
        raise ValueError(f'norms have budgets of {shares}: give ExchangeBudget the share')
    return shares[0]


def _of(norm: ExchangeNorm) -> Any:
    """Return the Budget of a norm."""
    return norm.selection
