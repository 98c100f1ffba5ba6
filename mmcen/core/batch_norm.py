"""Batch and instance norms of all streams, in place on the folded batch and in any layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


def private_batch_norm(norm: Any, x: Tensor, streams: Sequence[int], channels: int) -> Tensor:
    """Normalise each stream of a folded batch by its part of a batch norm of all streams.

    Statistics are updated as the stock layer does it.

    Args:
        norm: A stock batch norm with the parameters and statistics of all streams, one after the
            other.
        x: ``(S*B, C, ...)``, S the number of ``streams``.
        streams: Places among all streams of those in the batch.
        channels: C.

    Returns:
        A tensor like ``x``, in its memory format, which is no view.
    """
    if isinstance(norm, nn.SyncBatchNorm) and _is_distributed() and norm.training:
        return _synchronised(norm, x, streams, channels)
    if norm.training and norm.track_running_stats and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    momentum = norm.momentum
    if momentum is None:  # a cumulative average
        momentum = 1.0 / float(norm.num_batches_tracked) if norm.training else 0.0
    by_batch = norm.training or norm.running_mean is None
    running = (norm.running_mean, norm.running_var)
    if by_batch and not (norm.training and norm.track_running_stats):
        running = (None, None)
    offsets = [stream * channels for stream in streams]
    return _normalise(x, norm, running, by_batch, momentum, offsets)


def private_instance_norm(norm: Any, x: Tensor, streams: Sequence[int], channels: int) -> Tensor:
    """Normalise each stream of a folded batch by its part of an instance norm of all streams.

    Arguments and result as of :func:`private_batch_norm`.
    """
    by_sample = norm.training or not norm.track_running_stats
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
    return _normalise(x, norm, running, by_sample, momentum, offsets)


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _synchronised(norm: Any, x: Tensor, streams: Sequence[int], channels: int) -> Tensor:
    """Statistics over all processes: one call, and one exchange of messages, for all streams."""
    if len(streams) * channels < norm.num_features:
        raise ValueError(
            'SyncBatchNorm trains all streams together: use BatchNorm to train on a part of them'
        )
    by_stream = x.unflatten(0, (len(streams), -1)).transpose(0, 1)  # (B, S, C, ...)
    y = norm(by_stream.flatten(1, 2).contiguous()).unflatten(1, (len(streams), channels))
    return y.transpose(0, 1).flatten(0, 1)


def _normalise(
    x: Tensor,
    norm: Any,
    running: Sequence[Tensor | None],
    by_batch: bool,
    momentum: float,
    offsets: list[int],
) -> Tensor:
    arguments = (x, norm.weight, norm.bias, *running, by_batch, momentum, norm.eps, offsets)
    if torch.compiler.is_compiling():
        return _plain(*arguments)
    return SlicedBatchNorm.apply(*arguments)


class SlicedBatchNorm(torch.autograd.Function):
    """Batch norm of equal slices of the batch, each with its part of the parameters.

    The stock kernels write into one result, so no stream is copied, and the result is no view: an
    activation may work on it in place.
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
    """Samples of each slice of the folded batch, and the place of its parameters."""
    samples, channels = len(x) // len(offsets), x.shape[1]
    for i, low in enumerate(offsets):
        yield slice(i * samples, (i + 1) * samples), slice(low, low + channels)


def _plain(
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
    """:class:`SlicedBatchNorm` by plain operations, which a compiler fuses."""
    slices = x.unflatten(0, (len(offsets), -1)).float()  # (N, B, C, ...)
    shape = (len(offsets), 1, x.shape[1], *(1,) * (x.dim() - 2))
    if by_batch:
        space = (1, *range(3, slices.dim()))
        var, mean = torch.var_mean(slices, space, correction=0, keepdim=True)
        if running_mean is not None and running_var is not None:
            count = slices.numel() // (len(offsets) * x.shape[1])
            unbiased = var * (count / max(count - 1, 1))
            for running, found in ((running_mean, mean), (running_var, unbiased)):
                for one, low in zip(found.detach().flatten(1), offsets, strict=True):
                    running[low : low + x.shape[1]].lerp_(one, momentum)
    else:
        mean, var = (
            _gather(r, offsets, x.shape[1]).view(shape) for r in (running_mean, running_var)
        )
    scale = _gather(weight, offsets, x.shape[1]).view(shape) * torch.rsqrt(var + eps)
    shift = _gather(bias, offsets, x.shape[1]).view(shape)
    return ((slices - mean) * scale + shift).to(x.dtype).flatten(0, 1)


def _gather(values: Any, offsets: Sequence[int], channels: int) -> Tensor:
    return torch.stack([values[low : low + channels] for low in offsets])
