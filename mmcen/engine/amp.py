"""Mixed precision without a loss scaler, for devices on which mmengine's AmpOptimWrapper stops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import autocast


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Runs forward and loss under bfloat16 autocast, on the CPU as well as on an accelerator.

    bfloat16 has the exponent range of float32, so gradients do not vanish and no loss scale is
    needed; what mmengine's ``AmpOptimWrapper`` adds over this class is float16 with one.
    Arguments are those of ``mmengine.optim.OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: torch.nn.Module) -> Iterator[None]:
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield
