"""The penalty of Eq. 2: lambda * ||gamma-hat||_1 on the channels that may be exchanged."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.optim import Optimizer

from ...core import exchange_norms
from ...core.functional import soft_threshold, sparsity_subgradient
from ...layers import ExchangeNorm

MODES = ('subgradient', 'proximal')


@HOOKS.register_module()
class SparsityHook(Hook):
    """Penalise the scaling factors of all exchanging norms, once per real optimizer step.

    The penalty acts on the optimizer instead of the loss. Right before (or after) a step, gradients
    are already unscaled, clipped, accumulated and reduced, so the penalty is not scaled, clipped,
    averaged or repeated with them. Any model and any number of optimizers are supported.

    Args:
        coefficient: lambda, not negative. 5e-3 in the paper for segmentation, 1e-3 for translation.
        mode: ``'subgradient'`` adds lambda * sign(gamma) to the gradients before the step (as in
            the official code); ``'proximal'`` shrinks gamma by learning rate * lambda after it,
            which reaches exact zeros.

    Raises:
        ValueError: If the mode is unknown, the coefficient is negative, or a penalised norm is in
            no optimizer.
    """

    def __init__(self, coefficient: float = 5e-3, mode: str = 'subgradient') -> None:
        if mode not in MODES:
            raise ValueError(f"mode must be one of {MODES}, got '{mode}'")
        if coefficient < 0:
            raise ValueError(f'coefficient must not be negative, got {coefficient}')
        self.coefficient = coefficient
        self.mode = mode
        self._handles: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        wrapper = runner.optim_wrapper
        wrappers = wrapper.values() if hasattr(wrapper, 'optim_wrappers') else [wrapper]
        self.attach(model, *(w.optimizer for w in wrappers))

    def after_train(self, runner: Runner) -> None:
        self.detach()

    def attach(self, model: nn.Module, *optimizers: Optimizer) -> None:
        """Penalise a model in every step of optimizers, for training loops without a runner."""
        self.detach()
        norms = {
            id(norm.weight): (name, norm)
            for name, norm in exchange_norms(model)
            if norm.weight.requires_grad
        }
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                own = [norms.pop(id(p))[1] for p in group['params'] if id(p) in norms]
                if own:
                    self._handles.append(self._register(optimizer, group, own))
        if norms:
            name = next(iter(norms.values()))[0]
            self.detach()
            raise ValueError(
                f'the scaling factors of {len(norms)} exchanging norms are in no optimizer '
                f"(first: '{name}'): they could never reach the threshold; optimize them, or set "
                'requires_grad=False in norm_cfg'
            )

    def detach(self) -> None:
        """Stop penalising."""
        while self._handles:
            self._handles.pop().remove()

    def _register(self, optimizer: Optimizer, group: dict, norms: list[ExchangeNorm]) -> Any:
        @torch.no_grad()
        def add_subgradient(optimizer: Optimizer, *_: Any) -> None:
            # a fused optimizer under AMP unscales inside its step, so gradients are scaled here
            scale = getattr(optimizer, 'grad_scale', None)
            amount = self.coefficient if scale is None else self.coefficient * scale
            for norm in norms:
                if norm.weight.grad is not None:
                    step = sparsity_subgradient(norm.gamma(), norm.penalised)
                    norm.weight.grad.add_(step.flatten() * amount)

        @torch.no_grad()
        def shrink(optimizer: Optimizer, *_: Any) -> None:
            amount = self.coefficient * group['lr']
            # a fused optimizer skips its step internally
            skipped = getattr(optimizer, 'found_inf', None)
            if skipped is not None:
                amount = amount * (1 - skipped)
            for norm in norms:
                norm.gamma().copy_(soft_threshold(norm.gamma(), amount, norm.penalised))

        if self.mode == 'subgradient':
            return optimizer.register_step_pre_hook(add_subgradient)
        return optimizer.register_step_post_hook(shrink)
