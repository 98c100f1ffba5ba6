"""The paper's equations as pure functions.

Wang et al., "Channel Exchanging Networks for Multimodal and Multitask Dense Image Prediction",
section 3.1: Eq. 2 (sparsity penalty on a part of the scaling factors) and Eq. 4 (exchange of the
channels whose scaling factor is close to zero). Shapes: B batch, T tasks, M modalities, C channels,
H, W space.
"""

from collections.abc import Callable, Iterator
from functools import reduce
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .streams import StreamGrid

REGIONS = ('disjoint', 'all')
Watch = Callable[[list[Tensor]], None]  # takes the first-order effects by sub-part


def part_bounds(parts: int, channels: int) -> list[int]:
    """Where the sub-parts begin, and where the last ends: part i is ``[bounds[i],
    bounds[i + 1])``."""
    return [i * channels // parts for i in range(parts + 1)]


def sub_parts(grid: StreamGrid, channels: int, axis: str, region: str = 'disjoint') -> Tensor:
    """Which channels of each stream may be exchanged and are penalised (``gamma-hat`` of Eq. 2).

    Streams along ``axis`` own one of n equal parts of the channels each: part i is
    ``[i * C // n, (i + 1) * C // n)``, so that a channel is never redundant for all of them
    (section 4.5).

    Args:
        grid: sizes T and M.
        channels: C.
        axis: the axis of the grid that exchanges, ``'tasks'`` or ``'modalities'``.
        region: ``'disjoint'`` (the paper) or ``'all'`` channels (the official code's exchange,
            Table 13).

    Returns:
        Boolean ``(T, M, C)``; all False where the axis has a single stream, for it has nobody to
        ask.

    Raises:
        ValueError: if ``region`` is unknown, or ``channels`` are fewer than the parts.
    """
    if region not in REGIONS:
        raise ValueError(f"region must be one of {REGIONS}, got '{region}'")
    n = grid.length(axis)
    if n == 1:
        part = torch.zeros(1, channels, dtype=torch.bool)
    elif region == 'all':
        part = torch.ones(n, channels, dtype=torch.bool)
    else:
        if channels < n:
            raise ValueError(f'{channels} channels cannot be divided into {n} sub-parts')
        bounds = torch.tensor(part_bounds(n, channels))
        index = torch.arange(channels)
        part = (index >= bounds[:-1, None]) & (index < bounds[1:, None])  # (n, C)
    shape = [1, 1, channels]
    shape[grid.dim(axis) - 1] = n
    return part.view(shape).expand(grid.tasks, grid.modalities, channels).contiguous()


def spread_channels(region: Tensor, portion: float) -> Tensor:
    """A part of a region that does not depend on gamma: evenly spread ("fixed 30 %" of Table 1).

    Args:
        region: boolean ``(T, M, C)``, see :func:`sub_parts`.
        portion: of the C channels of each stream, at most its region.

    Returns:
        Boolean ``(T, M, C)``.

    Raises:
        ValueError: a portion beyond 0..1.

    Example:
        >>> spread_channels(torch.tensor([[[True] * 4 + [False] * 4]]), 0.25).int()
        tensor([[[1, 0, 1, 0, 0, 0, 0, 0]]], dtype=torch.int32)
    """
    if not 0 <= portion <= 1:
        raise ValueError(f'portion must be within 0..1, got {portion}')
    size = region.sum(-1, keepdim=True)
    count = torch.clamp(size, max=round(portion * region.shape[-1]))
    place = region.cumsum(-1) - 1  # of each channel in the region
    # place p is taken where p * count / size passes a whole number
    taken = (place * count) // size.clamp(min=1) != ((place - 1) * count) // size.clamp(min=1)
    return taken & region


def draw_channels(region: Tensor, count: Tensor) -> Tensor:
    """Random channels of a region, boolean ``(T, M, C)``: ``count`` ``(T, M)`` of each stream."""
    rank = torch.rand(region.shape, device=region.device).masked_fill(~region, 2.0).argsort(-1)
    return rank.argsort(-1) < count[..., None]


def mean_of_others(x: Tensor, dim: int) -> Tensor:
    """Mean over the other entries along ``dim``, same shape as ``x`` (second case of Eq. 4).

    The others are summed, not ``(total - own) / (n - 1)``: that is not exact, and for two streams
    the result must be the other stream to the last bit.
    """
    n = x.shape[dim]
    if n == 2:
        return x.flip(dim)
    streams = x.unbind(dim)
    sums = (reduce(torch.add, streams[:i] + streams[i + 1 :]) for i in range(n))
    return torch.stack([s / (n - 1) for s in sums], dim)


def exchange(x: Tensor, replaced: Tensor, dim: int) -> Tensor:
    """Channel exchange, Eq. 4: replaced channels become the mean of the other streams' along
    ``dim``.

    Gradients are cut from the replaced channel and flow through the new ones. No host
    synchronisation.

    Args:
        x: normalised features of all streams, ``(B, T, M, C, ...)``.
        replaced: boolean ``(T, M, C)``, True where ``|gamma| < threshold`` inside the stream's
            sub-part.
        dim: dimension of ``x`` along which streams exchange: 1 (tasks) or 2 (modalities).

    Returns:
        Tensor like ``x``, in the same memory layout.

    Example:
        >>> x = torch.tensor([1.0, 5.0]).view(1, 1, 2, 1, 1, 1)
        >>> exchange(x, torch.tensor([[[True], [False]]]), dim=2).flatten()
        tensor([5., 5.])
    """
    if x.shape[dim] == 1:
        return x
    mask = replaced.view(*replaced.shape, *(1,) * (x.dim() - 4))
    # x before the others: the result takes its memory layout from the first operand
    return torch.where(~mask, x, mean_of_others(x, dim))


class DisjointExchange(torch.autograd.Function):
    """:func:`exchange` in place on the folded batch, where a channel belongs to the sub-part of one
    stream: no stream takes a channel that is itself replaced, so the sub-parts are treated one
    after the other. About half the memory traffic, and no second copy of the features.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, replaced: Tensor, grid: StreamGrid, axis: str, watch: Watch | None
    ) -> Tensor:
        ctx.save_for_backward(replaced)
        ctx.grid, ctx.axis, ctx.watch = grid, axis, watch
        ctx.mark_dirty(x)
        differences = []
        for own, others, mask in _own_parts(x, replaced, grid, axis):
            mean = reduce(torch.add, others) / len(others) if len(others) > 1 else others[0]
            if watch is not None:
                differences.append(mean - own)
            torch.where(mask, mean, own, out=own)
        ctx.differences = differences
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (replaced,) = ctx.saved_tensors
        result = grad.clone()
        effects = []
        for i, (own, others, mask) in enumerate(_own_parts(result, replaced, ctx.grid, ctx.axis)):
            if ctx.watch is not None:
                effects.append(_sum_to_channels(own * ctx.differences[i]))
            kept = (~mask).to(own.dtype)
            share = (1 - kept) / len(others)
            for other in others:
                other.addcmul_(own, share)
            own.mul_(kept)
        if ctx.watch is not None:
            ctx.watch(effects)
        return result, None, None, None, None


def _own_parts(
    x: Tensor, replaced: Tensor, grid: StreamGrid, axis: str
) -> Iterator[tuple[Tensor, list[Tensor], Tensor]]:
    """By stream along the axis: its sub-part of the channels, the others' there, and the mask."""
    x = x.unflatten(0, (grid.tasks, grid.modalities, -1))  # (T, M, B, C, ...)
    n, dim = grid.length(axis), grid.dim(axis) - 1
    for i, (low, high) in enumerate(pairwise(part_bounds(n, x.shape[3]))):
        streams = list(x[:, :, :, low:high].unbind(dim))  # n of (T or M, B, c, ...)
        mask = replaced[:, :, low:high].select(dim, i)[:, None]  # (T or M, 1, c)
        yield streams.pop(i), streams, mask.view(*mask.shape, *(1,) * (x.dim() - 4))


def _sum_to_channels(x: Tensor) -> Tensor:
    """``(N, B, c, ...)`` to sums ``(N, c)``."""
    return x.sum([1, *range(3, x.dim())])


def sparsity_penalty(gamma: Tensor, penalised: Tensor) -> Tensor:
    """``||gamma-hat||_1`` of Eq. 2: the sum of ``|gamma|`` where ``penalised`` (same shape), a
    scalar."""
    return (gamma.abs() * penalised).sum()


def sparsity_subgradient(gamma: Tensor, penalised: Tensor) -> Tensor:
    """Subgradient of :func:`sparsity_penalty`: sign(gamma) where ``penalised``, else 0; 0 at gamma
    = 0."""
    return gamma.sign() * penalised


def soft_threshold(gamma: Tensor, amount: float, penalised: Tensor) -> Tensor:
    """Proximal step of :func:`sparsity_penalty`: shrink ``|gamma|`` by ``amount``, not below 0,
    where penalised."""
    shrunk = gamma.sign() * (gamma.abs() - amount).clamp(min=0)
    return torch.where(penalised, shrunk, gamma)
