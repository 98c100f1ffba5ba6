"""Strategies that select the channels that an :class:`ExchangeNorm` exchanges.

The paper's rule is :class:`Threshold`. :class:`Budget` exchanges a given share, chosen while the
network trains. :class:`Fixed` and :class:`Random` are the controls of Table 1.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .functional import Watch, spread_channels, sub_parts, top_channels
from .grid import StreamGrid

GATE_RATE = 0.1  # learning rate of the gates
GATE_BUDGET = 10.0  # weight of their budget loss; effects have unit variance


class Selection(nn.Module):
    """Base class of the strategies, which give a mask of the channels to replace.

    Args:
        grid: Sizes T and M.
        channels: Number of channels C.
        axis: Axis along which streams exchange.
        region: Channels that may be exchanged: ``'disjoint'`` sub-parts (the paper) or ``'all'``
            channels (the official code).
    """

    def __init__(
        self,
        grid: StreamGrid,
        channels: int,
        axis: str = 'modalities',
        region: str = 'disjoint',
    ) -> None:
        super().__init__()
        self.grid, self.axis, self.region = grid, axis, region
        # boolean (T, M, C); derived from the arguments, so not saved in checkpoints
        exchangeable = sub_parts(grid, channels, axis, region)
        self.register_buffer('exchangeable', exchangeable, persistent=False)
        self.register_buffer('penalised', torch.zeros_like(exchangeable), persistent=False)
        self.exchangeable: Tensor
        self.penalised: Tensor

    def mask(self, gamma: Tensor) -> Tensor:
        """Return the mask of the channels that are replaced now, boolean ``(T, M, C)``.

        Args:
            gamma: Scaling factors, ``(T, M, C)``.
        """
        raise NotImplementedError

    def draw(self) -> None:
        """Prepare a training step; called before each forward pass in training."""

    def watch(self) -> Watch | None:
        """Return a callable for the effects of replacing channels, or None to measure none."""
        return None


class Threshold(Selection):
    """Select the channels whose ``|gamma|`` is below a threshold (Eq. 4).

    Args:
        args: See :class:`Selection`.
        threshold: The paper's theta, at least 0. At 0 a norm is penalised but never exchanges (the
            "l1 without exchange" rows of Table 1).
        penalty_region: Channels whose gamma is penalised: ``'disjoint'`` (the paper and the
            official code) or ``'all'`` (Tables 1 and 13).
        kwargs: See :class:`Selection`.

    Raises:
        ValueError: If the threshold is negative.
    """

    def __init__(
        self,
        *args: Any,
        threshold: float = 2e-2,
        penalty_region: str = 'disjoint',
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if threshold < 0:
            raise ValueError(f'threshold must not be negative, got {threshold}')
        self.threshold = threshold
        channels = self.exchangeable.shape[-1]
        self.penalised.copy_(sub_parts(self.grid, channels, self.axis, penalty_region))

    def mask(self, gamma: Tensor) -> Tensor:
        """Return the channels below the threshold."""
        return (gamma.detach().abs() < self.threshold) & self.exchangeable

    def extra_repr(self) -> str:
        """Return the settings for ``repr``."""
        return f'threshold={self.threshold}, region={self.region}'


class Fixed(Selection):
    """Select a share of the channels, evenly spread and always the same.

    Args:
        args: See :class:`Selection`.
        share: Share of a stream's C channels, limited to its region.
        kwargs: See :class:`Selection`.
    """

    def __init__(self, *args: Any, share: float = 0.3, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.share = share
        # the choice of a budget is saved in checkpoints
        persistent = isinstance(self, Budget)
        chosen = spread_channels(self.exchangeable, share)
        self.register_buffer('chosen', chosen, persistent=persistent)
        self.chosen: Tensor

    def mask(self, gamma: Tensor) -> Tensor:
        """Return the fixed channels."""
        return self.chosen

    def extra_repr(self) -> str:
        """Return the settings for ``repr``."""
        return f'share={self.share}, region={self.region}'


class Random(Fixed):
    """Draw as many channels as :class:`Fixed` in each training step; the fixed ones at test."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.drawn = self.chosen  # of the last training step

    def mask(self, gamma: Tensor) -> Tensor:
        """Return the drawn channels in training, else the fixed ones."""
        return self.drawn.to(self.chosen.device) if self.training else self.chosen

    def draw(self) -> None:
        """Draw new channels."""
        value = torch.rand(self.chosen.shape, device=self.chosen.device)
        self.drawn = top_channels(value, self.exchangeable, self.share)


class Budget(Fixed):
    """Select a share of the channels; :class:`ExchangeBudget` chooses which.

    It starts as :class:`Fixed`. The mask and the statistics for the choice are saved in
    checkpoints. The mask is fixed at test.

    Args:
        args: See :class:`Selection`.
        kwargs: See :class:`Fixed`; the region is ``'disjoint'``.

    Attributes:
        wanted: Share that is wanted now; on a ramp it differs from ``share``.
        moved: Number of channels that the last choice added.

    Raises:
        ValueError: If the region is ``'all'``, or the share is more than a stream's sub-part.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.region != 'disjoint':
            raise ValueError(
                f"a budget chooses inside disjoint sub-parts, got region='{self.region}': "
                'leave it out'
            )
        self.check(self.share)
        self.wanted, self.moved = self.share, 0
        # running mean and mean square of the first-order effect of replacing a channel
        self.register_buffer('effects', torch.zeros(2, *self.exchangeable.shape))
        self.effects: Tensor
        self.memory: int | None = None  # steps to average over; None measures nothing
        self.register_buffer('gates', torch.zeros(self.exchangeable.shape))  # logits
        self.gates: Tensor
        self.temperature: float | None = None  # of the gates; None does not train them
        # channels that are exchanged as soon as their scaling factors have shrunk to zero
        self.register_buffer('leaving', torch.zeros_like(self.exchangeable))
        self.leaving: Tensor

    def check(self, share: float) -> None:
        """Raise ValueError if a share is larger than the sub-parts allow."""
        streams = self.grid.sizes[self.grid.dim(self.axis) - 1]
        if streams > 1 and not 0 < share <= 1 / streams:
            raise ValueError(
                f'a budget must be above 0 and at most 1/{streams}, the sub-part of each of '
                f'{streams} streams, got {share}'
            )

    def choose(self, mask: Tensor, later: bool = False) -> None:
        """Exchange the channels of a mask from now on.

        Args:
            mask: Boolean ``(T, M, C)``.
            later: Exchange new channels only after :meth:`exchange_leaving`.
        """
        new = mask & ~self.chosen
        self.moved = int(new.sum())
        self.leaving.copy_(new & later)
        self.chosen.copy_(mask & ~self.leaving)

    def exchange_leaving(self) -> None:
        """Also exchange the new channels of the last choice."""
        self.chosen.logical_or_(self.leaving)
        self.leaving.zero_()

    def watch(self) -> Watch | None:
        """Return the method that records effects, while they are measured."""
        if not self.training or self.memory is None:
            return None
        if self.grid.is_whole:
            return self._take_in
        # in the backward pass all streams may be present again
        there = torch.zeros(self.exchangeable.shape[:2], dtype=torch.bool)
        there.view(-1)[self.grid.streams] = True
        return partial(self._take_in, there=there[..., None].to(self.effects.device))

    @torch.no_grad()
    def _take_in(self, effects: Tensor, there: Tensor | None = None) -> None:
        """Update the running means by the effects of a step.

        Args:
            effects: Effects on the streams that were present, ``(T, M, C)``.
            there: Which streams were present, boolean ``(T, M, 1)``; None for all.
        """
        region = self.exchangeable
        weight: Tensor | float = 1 / (self.memory or 1)
        effects = effects.to(self.effects.dtype)
        if there is not None:
            of_all = effects.new_zeros(region.shape)
            of_all[there.squeeze(-1)] = effects.flatten(0, 1)
            effects, region, weight = of_all, region & there, there * weight
        effects = effects.where(region, 0.0)
        # a step that overflows, which a gradient scaler skips, counts as zero effect
        effects = effects.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        step = torch.stack([effects, effects.square()])
        self.effects.lerp_(step, weight)
        if self.temperature is not None:
            self._train_gates(effects, self.temperature, region)

    def _train_gates(self, effects: Tensor, temperature: float, region: Tensor) -> None:
        """Take a step of gradient descent on the logits of the gates.

        The mask is hard in the forward pass. Its gradient is passed straight through to soft gates:
        the first-order effect of a channel is the gradient of the loss with respect to its entry in
        the mask. A quadratic loss pulls the mean of the soft gates to the budget.
        """
        soft = torch.sigmoid(self.gates / temperature)
        excess = soft.where(self.exchangeable, 0.0).mean(-1, keepdim=True) - self.wanted
        gradient = effects / (self.effects[1].sqrt() + 1e-12) + GATE_BUDGET * excess
        step = GATE_RATE * gradient * soft * (1 - soft) / temperature
        self.gates.sub_(step.where(region, 0.0))


KINDS = {'threshold': Threshold, 'budget': Budget, 'fixed': Fixed, 'random': Random}


def make_selection(
    grid: StreamGrid,
    channels: int,
    axis: str = 'modalities',
    selection: str | None = None,
    *,
    budget: float | None = None,
    threshold: float = 2e-2,
    penalty_region: str = 'disjoint',
    share: float = 0.3,
    region: str = 'disjoint',
) -> Selection:
    """Build the selection of a norm from its options.

    Args:
        grid: Sizes T and M.
        channels: C.
        axis: Axis along which streams exchange.
        selection: ``'threshold'`` (the paper, default), ``'budget'``, ``'fixed'`` or ``'random'``.
        budget: Share of the channels that each stream takes from others; short for
            ``selection='budget', share=budget``.
        threshold: See :class:`Threshold`; other selections ignore it.
        penalty_region: See :class:`Threshold`; other selections ignore it.
        share: See :class:`Fixed`; the threshold ignores it.
        region: See :class:`Selection`.

    Raises:
        ValueError: If the selection is unknown, or a budget is given with another selection.
    """
    if budget is not None and selection not in (None, 'budget'):
        raise ValueError(f"budget={budget} beside selection='{selection}': leave one of them out")
    kind = selection or ('threshold' if budget is None else 'budget')
    if kind not in KINDS:
        raise ValueError(f"selection must be one of {tuple(KINDS)}, got '{kind}'")
    if kind == 'threshold':
        return Threshold(
            grid, channels, axis, region, threshold=threshold, penalty_region=penalty_region
        )
    return KINDS[kind](grid, channels, axis, region, share=share if budget is None else budget)
