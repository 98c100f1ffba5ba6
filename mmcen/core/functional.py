"""The paper's equations as pure functions.

Wang et al., "Channel Exchanging Networks for Multimodal and Multitask Dense Image Prediction",
section 3.1: Eq. 2 (sparsity penalty on a part of the scaling factors) and Eq. 4 (exchange of the
channels whose scaling factor is close to zero). Shapes: B batch, T tasks, M modalities, C channels;
any dimensions of space or tokens may follow.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from .grid import StreamGrid

REGIONS = ('disjoint', 'all')
Watch = Callable[[Tensor], None]  # receives first-order effects on the loss, (T, M, C)


def part_bounds(parts: int, channels: int) -> list[int]:
    """Return the bounds of the sub-parts: part i is ``[bounds[i], bounds[i+1])``.

    Raises:
        ValueError: If there are fewer channels than parts.
    """
    if channels < parts:
        raise ValueError(f'{channels} channels cannot be divided into {parts} sub-parts')
    return [i * channels // parts for i in range(parts + 1)]


def sub_parts(grid: StreamGrid, channels: int, axis: str, region: str = 'disjoint') -> Tensor:
    """Return which channels of each stream may be exchanged (``gamma-hat`` of Eq. 2).

    Streams along ``axis`` own one of n equal parts of the channels each: part i is
    ``[i * C // n, (i + 1) * C // n)``, so that a channel is never redundant for all of them
    (section 4.5).

    Args:
        grid: Sizes T and M.
        channels: C.
        axis: The axis of the grid that exchanges, ``'tasks'`` or ``'modalities'``.
        region: ``'disjoint'`` (the paper) or ``'all'`` channels (the official code's exchange,
            Table 13).

    Returns:
        Boolean ``(T, M, C)``; all False where the axis has a single stream.

    Raises:
        ValueError: If ``region`` is unknown, or ``channels`` are fewer than the parts.
    """
    if region not in REGIONS:
        raise ValueError(f"region must be one of {REGIONS}, got '{region}'")
    tasks, modalities = grid.sizes
    n, dim = grid.sizes[grid.dim(axis) - 1], grid.dim(axis) - 1
    if n == 1:
        part = torch.zeros(1, channels, dtype=torch.bool)
    elif region == 'all':
        part = torch.ones(n, channels, dtype=torch.bool)
    else:
        bounds = torch.tensor(part_bounds(n, channels))
        index = torch.arange(channels)
        part = (index >= bounds[:-1, None]) & (index < bounds[1:, None])  # (n, C)
    shape = [1, 1, channels]
    shape[dim] = n
    return part.view(shape).expand(tasks, modalities, channels).contiguous()


def spread_channels(region: Tensor, share: float) -> Tensor:
    """Choose evenly spread channels of a region, independent of gamma ("fixed 30 %" of Table 1).

    Args:
        region: Boolean ``(T, M, C)``, see :func:`sub_parts`.
        share: Share of the C channels of each stream, 0..1, cut to its region.

    Returns:
        Boolean ``(T, M, C)``.

    Raises:
        ValueError: If the share is outside 0..1.

    Examples:
        >>> spread_channels(torch.tensor([[[True] * 4 + [False] * 4]]), 0.25).int()
        tensor([[[1, 0, 1, 0, 0, 0, 0, 0]]], dtype=torch.int32)
    """
    if not 0 <= share <= 1:
        raise ValueError(f'share must be within 0..1, got {share}')
    size = region.sum(-1, keepdim=True)
    count = torch.clamp(size, max=round(share * region.shape[-1]))
    place = region.cumsum(-1) - 1  # of each channel in the region
    # place p is taken where p * count / size passes a whole number
    taken = (place * count) // size.clamp(min=1) != ((place - 1) * count) // size.clamp(min=1)
    return taken & region


def top_channels(value: Tensor, region: Tensor, share: float) -> Tensor:
    """Choose the channels of a region with the highest values.

    Args:
        value: ``(T, M, C)``.
        region: Boolean ``(T, M, C)``.
        share: Share of the C channels of each stream, 0..1, cut to its region.

    Returns:
        Boolean ``(T, M, C)``.
    """
    count = torch.clamp(region.sum(-1), max=round(share * region.shape[-1]))  # (T, M)
    inside = value.masked_fill(~region, -torch.inf)
    rank = torch.argsort(inside, dim=-1, descending=True, stable=True).argsort(-1)
    return (rank < count[..., None]) & region


def mean_of_others(x: Tensor, dim: int) -> Tensor:
    """Mean over the other entries along ``dim``, same shape as ``x`` (second case of Eq. 4).

    The others are summed, because ``(total - own) / (n - 1)`` is not exact. For two streams the
    result must be bit-identical to the other stream.
    """
    n = x.shape[dim]
    if n == 2:
        return x.flip(dim)
    streams = x.unbind(dim)
    sums = (reduce(torch.add, streams[:i] + streams[i + 1 :]) for i in range(n))
    return torch.stack([s / (n - 1) for s in sums], dim)


def exchange(x: Tensor, replaced: Tensor, dim: int, others: Tensor | None = None) -> Tensor:
    """Channel exchange, Eq. 4: replaced channels become the mean of the other streams'.

    The replaced channel gets no gradient; it flows to the channels of the other streams. There is
    no host synchronisation.

    Args:
        x: Normalised features of all streams, ``(B, T, M, C, ...)``.
        replaced: Boolean ``(T, M, C)``, True where ``|gamma| < threshold`` inside the stream's
            sub-part.
        dim: Dimension of ``x`` along which streams exchange: 1 (tasks) or 2 (modalities).
        others: Values for replaced channels instead of the mean, in the shape of ``x``.

    Returns:
        Tensor like ``x``, in the same memory layout.

    Examples:
        >>> x = torch.tensor([1.0, 5.0]).view(1, 1, 2, 1, 1, 1)
        >>> exchange(x, torch.tensor([[[True], [False]]]), dim=2).flatten()
        tensor([5., 5.])
    """
    if x.shape[dim] == 1:
        return x
    mask = replaced.view(*replaced.shape, *(1,) * (x.dim() - 4))
    # x is the first operand because the result has its memory layout
    return torch.where(~mask, x, mean_of_others(x, dim) if others is None else others)


def present_rows(values: Tensor, grid: StreamGrid) -> Tensor:
    """Select the entries of the present streams from ``(T, M, ...)``."""
    if grid.is_whole:
        return values
    return values[list(grid.present('tasks'))][:, list(grid.present('modalities'))]


def sparsity_penalty(gamma: Tensor, penalised: Tensor) -> Tensor:
    """``||gamma-hat||_1`` of Eq. 2: the sum of ``|gamma|`` where ``penalised``, a scalar."""
    return (gamma.abs() * penalised).sum()


def sparsity_subgradient(gamma: Tensor, penalised: Tensor) -> Tensor:
    """Subgradient of :func:`sparsity_penalty`: sign(gamma) where ``penalised``, else 0."""
    return gamma.sign() * penalised


def soft_threshold(gamma: Tensor, amount: float, penalised: Tensor) -> Tensor:
    """Proximal step of :func:`sparsity_penalty`: shrink ``|gamma|`` by ``amount``, not below 0."""
    shrunk = gamma.sign() * (gamma.abs() - amount).clamp(min=0)
    return torch.where(penalised, shrunk, gamma)
