"""Batch and instance normalisation of all streams in place on the folded batch, in any layout."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class SlicedBatchNorm(torch.autograd.Function):
    """Batch norm of equal slices of the batch, each with the parameters of its stream.

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
        training: bool,
        momentum: float,
        eps: float,
        slices: int,
    ) -> Tensor:
        y = torch.empty_like(x)
        stats = [weight.new_empty(2, x.shape[1] if training else 0) for _ in range(slices)]
        for (batch, part), (mean, invstd) in zip(_slices(x, weight, slices), stats, strict=True):
            torch.native_batch_norm(
                x[batch],
                weight[part],
                bias[part],
                None if running_mean is None else running_mean[part],
                None if running_var is None else running_var[part],
                training,
                momentum,
                eps,
                out=(y[batch], mean, invstd),
            )
        ctx.save_for_backward(x, weight, running_mean, running_var, *stats)
        ctx.training, ctx.eps = training, eps
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, running_mean, running_var, *stats = ctx.saved_tensors
        grads = [
            torch.ops.aten.native_batch_norm_backward(
                grad[batch],
                x[batch],
                weight[part],
                None if running_mean is None else running_mean[part],
                None if running_var is None else running_var[part],
                *statistics,
                ctx.training,
                ctx.eps,
                [ctx.needs_input_grad[0], True, True],
            )
            for (batch, part), statistics in zip(_slices(x, weight, len(stats)), stats, strict=True)
        ]
        inputs, *affine = zip(*grads, strict=True)
        # several slices of a stream share its parameters
        shape = (len(weight) // x.shape[1], -1, x.shape[1])  # (S, slices of a stream, C)
        of_weight, of_bias = (torch.cat(g).view(shape).sum(1).flatten() for g in affine)
        of_x = torch.cat(inputs) if ctx.needs_input_grad[0] else None
        return of_x, of_weight, of_bias, None, None, None, None, None, None


def _slices(x: Tensor, weight: Tensor, count: int) -> Iterator[tuple[slice, slice]]:
    """Samples of each slice of the folded batch, and the place of its stream's parameters."""
    samples, channels = len(x) // count, x.shape[1]
    slices_of_a_stream = count * channels // len(weight)
    for i in range(count):
        low = i // slices_of_a_stream * channels
        yield slice(i * samples, (i + 1) * samples), slice(low, low + channels)


def private_instance_norm(norm: nn.InstanceNorm2d, x: Tensor) -> Tensor:
    """A stock instance norm of S*C features on the folded batch ``(S*B, C, ...)``.

    Output: like ``x``, in its memory format. Running statistics, where the norm tracks them, are
    updated for a batch of one sample only.
    """
    use_batch = norm.training or not norm.track_running_stats
    slices = len(x) if use_batch else len(norm.weight) // x.shape[1]
    return SlicedBatchNorm.apply(
        x, norm.weight, norm.bias, norm.running_mean, norm.running_var, use_batch,
        norm.momentum or 0.0, norm.eps, slices,
    )  # fmt: skip


def private_batch_norm(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """A stock batch norm of S*C features on the folded batch ``(S*B, C, ...)``.

    Statistics are updated as the stock layer does it. Output: like ``x``, in its memory format.
    """
    use_batch = norm.training or norm.running_mean is None
    momentum = 0.0 if norm.momentum is None else norm.momentum
    if norm.training and norm.track_running_stats and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            momentum = 1.0 / float(norm.num_batches_tracked)
    frozen = not norm.training or not norm.track_running_stats
    running = (norm.running_mean, norm.running_var)
    if use_batch and frozen:
        running = (None, None)
    if torch.compiler.is_compiling():
        return _plain(norm, x, use_batch, momentum, *running)
    streams = len(norm.weight) // x.shape[1]
    return SlicedBatchNorm.apply(
        x, norm.weight, norm.bias, *running, use_batch, momentum, norm.eps, streams
    )


def _plain(
    norm: nn.BatchNorm2d,
    x: Tensor,
    use_batch: bool,
    momentum: float,
    running_mean: Tensor | None,
    running_var: Tensor | None,
) -> Tensor:
    """The same by plain operations, which a compiler fuses."""
    channels, space = x.shape[1], range(3, x.dim() + 1)
    streams = x.unflatten(0, (-1, len(x) // (len(norm.weight) // channels)))  # (S, B, C, ...)
    streams = streams.float()
    shape = (-1, 1, channels, *(1 for _ in space))
    mean: Tensor | None
    var: Tensor | None
    if use_batch:
        var, mean = torch.var_mean(streams, (1, *space), correction=0)  # (S, C)
        if running_mean is not None and running_var is not None:
            count = streams.numel() // (len(norm.weight))
            running_mean.lerp_(mean.flatten().detach(), momentum)
            unbiased = var.flatten().detach() * (count / max(count - 1, 1))
            running_var.lerp_(unbiased, momentum)
    else:
        mean, var = running_mean, running_var
    assert mean is not None
    assert var is not None
    scale = norm.weight * torch.rsqrt(var.reshape(-1) + norm.eps)
    shift = norm.bias - mean.reshape(-1) * scale
    return (streams * scale.view(shape) + shift.view(shape)).to(x.dtype).flatten(0, 1)
