"""Batch and instance norms of all streams by plain operations, which a compiler fuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def plain_norm(
    norm: Any, x: Tensor, streams: Sequence[int], by_input: bool, each_sample: bool = False
) -> Tensor:
    """Normalise each stream of a folded batch by its part of a norm of all streams.

    No operation depends on the batch size or on values, so one graph serves all batches. The code
    minimises the number of operations rather than their cost, because a network has dozens of
    norms to compile.

    Args:
        norm: A stock batch or instance norm with the parameters and statistics of all streams.
        x: ``(S*B, C, ...)``, S the number of ``streams``.
        streams: Indices of the streams in the batch, among all streams.
        by_input: Whether to normalise by the statistics of the input instead of running ones.
        each_sample: Whether statistics are of each sample (instance norm) instead of all samples
            of a stream.

    Returns:
        A tensor like ``x``.
    """
    channels = x.shape[1]
    own = x.unflatten(0, (len(streams), -1))  # (S, B, C, ...)
    own = own.to(torch.promote_types(x.dtype, torch.float32))
    shape = (len(streams), 1, channels, *(1,) * (x.dim() - 2))
    if by_input:
        space = list(range(3, own.dim()))
        over = space if each_sample else [1, *space]
        var, mean = torch.var_mean(own, over, correction=0, keepdim=True)
        if norm.training and norm.track_running_stats:
            count = own.numel() // mean.numel()
            unbiased = var.detach() * (count / max(count - 1, 1))
            _update(norm, mean.detach(), unbiased, channels, streams)
    else:
        running = (norm.running_mean, norm.running_var)
        mean, var = (_rows(values, channels, streams).view(shape) for values in running)
    weight, bias = (_rows(v, channels, streams).view(shape) for v in (norm.weight, norm.bias))
    y = (own - mean) * (weight * torch.rsqrt(var + norm.eps)) + bias
    return y.to(x.dtype).flatten(0, 1)


@torch.no_grad()
def _update(norm: Any, mean: Tensor, var: Tensor, channels: int, streams: Sequence[int]) -> None:
    """Update the running statistics by those of the input, ``(S, B or 1, C, 1, ...)``."""
    momentum = norm.momentum
    if momentum is None:  # a cumulative average
        momentum = norm.num_batches_tracked.to(norm.running_mean.dtype).reciprocal()
    for running, found in ((norm.running_mean, mean), (norm.running_var, var)):
        values = found.flatten(2).mean(1).to(running.dtype)  # (S, C)
        if len(streams) * channels == len(running):
            running.view(-1, channels).lerp_(values, momentum)
            continue
        for stream, value in zip(streams, values, strict=True):
            running[stream * channels : (stream + 1) * channels].lerp_(value, momentum)


def _rows(values: Tensor, channels: int, streams: Sequence[int]) -> Tensor:
    """Select the values ``(S, C)`` of the streams in the batch from those of all streams."""
    rows = values.view(-1, channels)
    return rows if len(rows) == len(streams) else rows[list(streams)]
