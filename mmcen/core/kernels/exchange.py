"""Exchange in place on the folded batch, and what it would change in the loss."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..functional import Watch, part_bounds, present_rows
from ..grid import StreamGrid


class DisjointExchange(torch.autograd.Function):
    """:func:`~mmcen.core.exchange` in place on the folded batch, for disjoint sub-parts.

    A channel belongs to the sub-part of one stream, so no stream takes a channel that is itself
    replaced, and the sub-parts are processed one after the other. This takes about half the memory
    traffic of :func:`~mmcen.core.exchange`, and no second copy of the features.

    Arguments of ``apply``: features ``(T*M*B, ...)`` with C channels in dimension ``channel_dim``,
    the mask ``(T, M, C)`` of all streams, the grid, the axis, ``channel_dim``, and None or a
    :data:`Watch`. In the backward pass it receives the first-order effect on the loss of replacing
    each channel, a tensor ``(T, M, C)`` of the streams that are present, which is 0 outside the
    sub-parts.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        replaced: Tensor,
        grid: StreamGrid,
        axis: str,
        channel_dim: int,
        watch: Watch | None,
    ) -> Tensor:
        """Replace channels in place and return the features."""
        parts = _Parts(replaced, grid, axis, channel_dim)
        ctx.parts, ctx.watch, ctx.differences = parts, watch, []
        ctx.mark_dirty(x)
        for own, others, mask in parts.of(x):
            mean = reduce(torch.add, others) / len(others) if len(others) > 1 else others[0]
            if watch is not None:
                ctx.differences.append(mean - own)
            torch.where(mask, mean, own, out=own)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Pass the gradients of replaced channels on to the other streams."""
        result = grad.clone()
        wide = torch.promote_types(grad.dtype, torch.float32)  # sums of half precision overflow
        effects = grad.new_zeros(ctx.parts.replaced.shape, dtype=wide)  # (T, M, C) of those present
        for i, (own, others, mask) in enumerate(ctx.parts.of(result)):
            if ctx.watch is not None:
                # earlier parts changed other channels, so the gradients of this part are unchanged
                product = own * ctx.differences[i]  # (T or M, B, c, ...)
                ctx.parts.select(effects, i).copy_(
                    product.sum([1, *range(3, product.dim())], dtype=wide)
                )
            kept = (~mask).to(own.dtype)
            share = (1 - kept) / len(others)
            for other in others:
                other.addcmul_(own, share)
            own.mul_(kept)
        if ctx.watch is not None:
            ctx.watch(effects)
        return result, None, None, None, None, None


class _Parts:
    """The sub-parts of the streams that are present, as views of folded features."""

    def __init__(self, replaced: Tensor, grid: StreamGrid, axis: str, channel_dim: int) -> None:
        self.shape, self.dim = grid.shape, grid.dim(axis) - 1
        self.channel_dim = channel_dim
        all_bounds = list(pairwise(part_bounds(grid.sizes[self.dim], replaced.shape[-1])))
        self.bounds = [all_bounds[i] for i in grid.present(axis)]
        self.replaced = present_rows(replaced, grid)

    def of(self, x: Tensor) -> Iterator[tuple[Tensor, list[Tensor], Tensor]]:
        """Yield, for each stream along the axis, its sub-part, that of the others, and the mask."""
        x = x.movedim(self.channel_dim, 1).unflatten(0, (*self.shape, -1))  # (T, M, B, C, ...)
        for i, (low, high) in enumerate(self.bounds):
            streams = list(x[:, :, :, low:high].unbind(self.dim))  # n of (T or M, B, c, ...)
            mask = self.select(self.replaced, i)[:, None]  # (T or M, 1, c)
            yield streams.pop(i), streams, mask.view(*mask.shape, *(1,) * (x.dim() - 4))

    def select(self, values: Tensor, i: int) -> Tensor:
        """Return the sub-part of stream i in values ``(T, M, C)``, a view ``(T or M, c)``."""
        low, high = self.bounds[i]
        return values[:, :, low:high].select(self.dim, i)


class WatchedExchange(torch.autograd.Function):
    """Identity on exchanged features that passes effects to a :data:`Watch` in the backward pass.

    It is for compiled graphs, which do not support the mutations of :class:`DisjointExchange`.

    Arguments of ``apply``: exchanged features ``(B, T, M, C, ...)``; the difference that replacing
    makes, in the same shape and without gradients; the callable.
    """

    @staticmethod
    def forward(ctx: Any, exchanged: Tensor, difference: Tensor, watch: Watch) -> Tensor:
        """Return a copy of the exchanged features."""
        ctx.save_for_backward(difference)
        ctx.watch = watch
        return exchanged.clone()  # in-place activations need no view; compilers fuse the copy

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Pass the effects to the watch, and return the gradient unchanged."""
        (difference,) = ctx.saved_tensors
        product = grad * difference
        wide = torch.promote_types(grad.dtype, torch.float32)
        ctx.watch(product.sum([0, *range(4, product.dim())], dtype=wide))
        return grad, None, None
