"""Batch and instance norms of all streams, in place on the folded batch and in any layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from .plain_norm import plain_norm


def private_batch_norm(norm: Any, x: Tensor, streams: Sequence[int], channels: int) -> Tensor:
    """Normalise each stream of a folded batch by its part of a batch norm of all streams.

    Statistics are updated as the stock layer does it.

    Args:
        norm: A stock batch norm with the parameters and statistics of all streams, one after the
            other.
        x: ``(S*B, C, ...)``, S the number of ``streams``.
        streams: Indices of the streams in the batch, among all streams.
        channels: C.

    Returns:
        A tensor like ``x``, in its memory format. It is not a view.
    """
    if isinstance(norm, nn.SyncBatchNorm) and _is_distributed() and norm.training:
        return _synchronised(norm, x, streams, channels)
    if norm.training and norm.track_running_stats and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    by_batch = norm.training or norm.running_mean is None
    if torch.compiler.is_compiling():
        return plain_norm(norm, x, streams, by_batch)
    momentum = norm.momentum
    if momentum is None:  # a cumulative average
        momentum = 1.0 / float(norm.num_batches_tracked) if norm.training else 0.0
    running = (norm.running_mean, norm.running_var)
    if by_batch and not (norm.training and norm.track_running_stats):
        running = (None, None)
    offsets = [stream * channels for stream in streams]
    arguments = (norm.weight, norm.bias, *running, by_batch, momentum, norm.eps, offsets)
    return SlicedBatchNorm.apply(x, *arguments)


def private_instance_norm(norm: Any, x: Tensor, streams: Sequence[int], channels: int) -> Tensor:
    """Normalise each stream of a folded batch by its part of an instance norm of all streams.

    Arguments and result are those of :func:`private_batch_norm`.
    """
    by_sample = norm.training or not norm.track_running_stats
    if torch.compiler.is_compiling():
        return plain_norm(norm, x, streams, by_sample, each_sample=True)
    samples = len(x) // len(streams)
    running = (norm.running_mean, norm.running_var)
    momentum = norm.momentum or 0.0
    if by_sample and norm.track_running_stats and samples > 1:
        # the running statistics of a stream are averaged over its samples
        parts = [slice(stream * channels, (stream + 1) * channels) for stream in streams]
        states: Any = [
            (*(r[part] for r in running), norm.weight[part], norm.bias[part]) for part in parts
        ]
        pairs = zip(x.chunk(len(streams)), states, strict=True)
        made = [F.instance_norm(one, *s, True, momentum, norm.eps) for one, s in pairs]  # type: ignore
        return torch.cat(made)
    repeats = samples if by_sample else 1
    offsets = [stream * channels for stream in streams for _ in range(repeats)]
    arguments = (norm.weight, norm.bias, *running, by_sample, momentum, norm.eps, offsets)
    return SlicedBatchNorm.apply(x, *arguments)


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _synchronised(norm: Any, x: Tensor, streams: Sequence[int], channels: int) -> Tensor:
    """Normalise by statistics over all processes, in one call and one message for all streams."""
    by_stream = x.unflatten(0, (len(streams), -1)).transpose(0, 1)  # (B, S, C, ...)
    inputs = by_stream.flatten(1, 2).contiguous()
    if len(streams) * channels == norm.num_features:
        y = norm(inputs)
    else:  # all processes drew the same streams, so their messages have the same size
        y = _of_part(norm, inputs, streams, channels)
    return y.unflatten(1, (len(streams), channels)).transpose(0, 1).flatten(0, 1)


def _of_part(norm: Any, inputs: Tensor, streams: Sequence[int], channels: int) -> Tensor:
    """Call a norm with the parameters and statistics of some streams, ``inputs`` (B, S*C, ...)."""
    slices = [slice(stream * channels, (stream + 1) * channels) for stream in streams]
    state = {n: t for n, t in (*norm.named_parameters(), *norm.named_buffers()) if t.dim()}
    part = {name: torch.cat([tensor[own] for own in slices]) for name, tensor in state.items()}
    y = functional_call(norm, part, (inputs,))
    with torch.no_grad():
        for name in [name for name, _ in norm.named_buffers() if name in part]:
            for own, updated in zip(slices, part[name].split(channels), strict=True):
                state[name][own] = updated
    return y


class SlicedBatchNorm(torch.autograd.Function):
    """Batch norm of equal slices of the batch, each with its part of the parameters.

    The stock kernels write into one result, so no stream is copied. The result is not a view, so
    an in-place activation can follow.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        by_batch: bool,
        momentum: float,
        eps: float,
        offsets: list[int],
    ) -> Tensor:
        """Normalise each slice; ``offsets`` are the first parameters of each slice."""
        y = torch.empty_like(x)
        # mean and inverse deviation of each slice
        stats = [weight.new_empty(2, x.shape[1] if by_batch else 0) for _ in offsets]
        for (batch, part), (mean, invstd) in zip(_slices(x, offsets), stats, strict=True):
            torch.native_batch_norm(
                x[batch],
                weight[part],
                bias[part],
                None if running_mean is None else running_mean[part],
                None if running_var is None else running_var[part],
                by_batch,
                momentum,
                eps,
                out=(y[batch], mean, invstd),
            )
        ctx.save_for_backward(x, weight, running_mean, running_var, *stats)
        ctx.by_batch, ctx.eps, ctx.offsets = by_batch, eps, offsets
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return gradients of the input, the weight and the bias."""
        x, weight, running_mean, running_var, *stats = ctx.saved_tensors
        of_weight, of_bias = torch.zeros_like(weight), torch.zeros_like(weight)
        of_x = []
        for (batch, part), statistics in zip(_slices(x, ctx.offsets), stats, strict=True):
            one, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
                grad[batch],
                x[batch],
                weight[part],
                None if running_mean is None else running_mean[part],
                None if running_var is None else running_var[part],
                *statistics,
                ctx.by_batch,
                ctx.eps,
                [ctx.needs_input_grad[0], True, True],
            )
            of_x.append(one)
            of_weight[part] += d_weight
            of_bias[part] += d_bias
        d_x = torch.cat(of_x) if ctx.needs_input_grad[0] else None
        return d_x, of_weight, of_bias, None, None, None, None, None, None


def _slices(x: Tensor, offsets: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Yield the samples of each slice of the folded batch and the slice of its parameters."""
    samples, channels = len(x) // len(offsets), x.shape[1]
    for i, low in enumerate(offsets):
        yield slice(i * samples, (i + 1) * samples), slice(low, low + channels)
