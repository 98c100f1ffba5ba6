"""Mixed precision without a loss scaler, for devices on which mmengine's AmpOptimWrapper stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import autocast
from torch import Tensor
from torch.nn.modules.utils import _pair
from torch.overrides import TorchFunctionMode


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Runs forward and loss under bfloat16 autocast, on the CPU as well as on an accelerator.

    bfloat16 has the exponent range of float32, so gradients do not vanish and no loss scale is
    needed; what mmengine's ``AmpOptimWrapper`` adds over this class is float16 with one.

    Args:
        enabled: False for float32; ``'auto'`` for bfloat16 on devices that have instructions for
            it, and float32 on others, which would be slower with it.
        **kwargs: Those of ``mmengine.optim.OptimWrapper``.

    Raises:
        ValueError: If ``enabled`` is something else.
    """

    def __init__(self, *args: Any, enabled: bool | str = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if enabled not in (True, False, 'auto'):
            raise ValueError(f"enabled must be True, False or 'auto', got {enabled!r}")
        self.enabled = enabled

    @contextmanager
    def optim_context(self, model: torch.nn.Module) -> Iterator[None]:
        device = next(model.parameters(), torch.empty(0)).device.type
        if self.enabled == 'auto':
            self.enabled = has_bfloat16(device)
            chosen, has = ('bfloat16', 'has') if self.enabled else ('float32', 'has no')
            print_log(f'{chosen}: this {device} {has} instructions for bfloat16', 'current')
        with super().optim_context(model), ExitStack() as stack:
            if self.enabled:
                stack.enter_context(autocast(dtype=torch.bfloat16))
                if device == 'cpu':
                    stack.enter_context(FastDepthwise())
            yield


def has_bfloat16(device: str) -> bool:
    """Whether a device has instructions for bfloat16; a CPU as ``avx512_bf16`` or ``amx_bf16``.

    False for a CPU of which PyTorch is too old to tell.
    """
    if device == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == 'cpu':
        read = getattr(torch.cpu, 'get_capabilities', dict)
        return any(has for name, has in read().items() if name.endswith('bf16'))
    return device != 'mps'  # which mmengine's autocast does not know


def is_slow(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> bool:
    """Whether a convolution is depthwise, and its gradient slow in bfloat16.

    Examples:
        >>> is_slow(torch.zeros(1, 4, 8, 8), torch.zeros(4, 1, 5, 5), groups=4)
        True
    """
    if x.dim() != 4 or isinstance(padding, str) or torch.float64 in (x.dtype, weight.dtype):
        return False  # autocast leaves double precision as it is
    depthwise = 1 < groups == x.shape[1] == weight.shape[0]
    return depthwise and (max(weight.shape[2:]) > 3 or _pair(stride) != (1, 1))


class FastDepthwise(TorchFunctionMode):
    """Gradients of depthwise convolutions in float32, under bfloat16 autocast on a CPU.

    With bfloat16, oneDNN has fast gradients only for kernels of 3 and stride 1; others take 2 to 9
    times as long as in float32. Outputs and what is kept for the gradients stay bfloat16.
    """

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        convolves = func is torch.conv2d and not kwargs and torch.is_autocast_enabled('cpu')
        if convolves and is_slow(*args):
            x, weight, bias, *options = args
            dtype = torch.get_autocast_dtype('cpu')
            bias = None if bias is None else bias.to(dtype)
            return _DepthwiseConv2d.apply(x.to(dtype), weight.to(dtype), bias, *options)
        return func(*args, **(kwargs or {}))


class _DepthwiseConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Tensor:
        # the same two as the convolution itself, so that checkpointing may compute it again
        ctx.save_for_backward(x, weight)
        ctx.options, ctx.bias = options, bias is not None
        return torch.conv2d(x, weight, bias, *options)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.options
        grads = torch.ops.aten.convolution_backward(
            grad.float(),
            x.float(),
            weight.float(),
            [len(weight)],
            *map(_pair, (stride, padding, dilation)),
            False,
            [0, 0],
            groups,
            [*ctx.needs_input_grad[:2], ctx.bias],
        )
        return (*(g if g is None else g.to(x.dtype) for g in grads), *[None] * 4)
