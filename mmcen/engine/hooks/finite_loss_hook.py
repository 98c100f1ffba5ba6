"""Stop a training whose loss is not finite."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop a training whose loss is infinite or NaN, before its weights are saved.

    Raises:
        ValueError: If a loss is not finite; the message names it, the iteration and the frames.
    """

    priority = 'VERY_HIGH'

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Check all losses of the step."""
        losses = {name: torch.as_tensor(loss).detach() for name, loss in (outputs or {}).items()}
        bad = [f'{name} is {loss.item()}' for name, loss in losses.items() if not loss.isfinite()]
        if bad:
            raise ValueError(
                f'{" and ".join(bad)} in iteration {runner.iter + 1}{_frames(data_batch)}: lower '
                'the learning rate, or look at these frames; the last checkpoint is from before'
            )


def _frames(batch: Any) -> str:
    samples = batch.get('data_samples') if isinstance(batch, dict) else None
    samples = samples if isinstance(samples, (list, tuple)) else []
    names = [str(sample.img_path) for sample in samples if hasattr(sample, 'img_path')]
    return f' on {", ".join(names)}' if names else ''
