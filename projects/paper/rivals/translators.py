"""Rivals of CEN for translation that change the training step: Tables 4, 7 and 8."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.registry import MODELS
from torch import Tensor

from mmcen.models.multitask.cen_multitask import Outputs
from mmcen.models.translators.cen_translator import CENTranslator, frozen, iteration

from .fusion import fusion_losses
from .learned_per_task import SharingPolicy, find_policy
from .turns import update_in_turn


@MODELS.register_module()
class FusionTranslator(CENTranslator):
    """:class:`~mmcen.models.CENTranslator` with the losses of fusion layers (Table 4)."""

    def loss(self, outputs: Outputs, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        return super().loss(outputs, targets) | fusion_losses(self)


@MODELS.register_module()
class AdaShareTranslator(CENTranslator):
    """:class:`~mmcen.models.CENTranslator` around an :class:`AdaShareUNet` (Table 8).

    ``policy`` and ``network`` are updated alternately, see :func:`update_in_turn`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.policy: SharingPolicy = self.network.policy  # has its own optimizer
        self.network.policy = None

    def outputs(self, domains: dict[str, Tensor]) -> Outputs:
        self.policy()  # draw
        return super().outputs(domains)

    def loss(self, outputs: Outputs, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        policy: Any = find_policy(self)
        return {'policy.loss_sharing': policy.loss()} | super().loss(outputs, targets)

    def _update(self, name: str, loss: Tensor, optim_wrapper: OptimWrapperDict) -> None:
        if name == 'network':
            update_in_turn(optim_wrapper, loss, iteration())
        else:
            super()._update(name, loss, optim_wrapper)


@MODELS.register_module()
class XTCTranslator(CENTranslator):
    """:class:`~mmcen.models.CENTranslator` with consistency of predicted tasks: X-TC of Table 7.

    Args:
        args, kwargs: Arguments of :class:`~mmcen.models.CENTranslator`, with all tasks in every
            step.
        consistency: Config of a :class:`CrossTaskConsistency` without ``tasks``; it has its own
            optimizer, ``consistency``.

    Raises:
        ValueError: If steps train a single task.
    """

    def __init__(self, *args: Any, consistency: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.flow != 'all':
            raise ValueError("consistency needs all tasks in every step: set flow='all'")
        self.consistency: Any = MODELS.build(dict(consistency, tasks=self.judged))

    def _learn(
        self,
        domains: dict[str, Tensor],
        outputs: Outputs,
        targets: dict[str, Tensor],
        optim_wrapper: OptimWrapperDict,
    ) -> dict[str, Tensor]:
        log = super()._learn(domains, outputs, targets, optim_wrapper)
        return log | self._train_consistency(targets, optim_wrapper['consistency'])

    def loss(self, outputs: Outputs, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses of the heads, and of the triangles of X-TC for all streams."""
        streams = self.plan.grid.modalities  # a sum over them of means
        fakes = self._fakes(outputs)
        images = {task: torch.cat(list(by_stream.values())) for task, by_stream in fakes.items()}
        repeated = {task: torch.cat([targets[task]] * streams) for task in images}
        with frozen(self.consistency) as module:
            networks: Any = module
            losses = [networks.weight * streams * loss for loss in networks(images, repeated)]
            return super().loss(outputs, targets) | networks.named(losses, 'triangle')

    def _train_consistency(self, targets: dict[str, Tensor], optimizer: Any) -> dict[str, Tensor]:
        """X-TC's networks learn from the targets."""
        with optimizer.optim_context(self.consistency):
            own = {task: targets[task] for task in self.judged}
            losses = self.consistency(own, own)
        wrapped = is_model_wrapper(self.consistency)
        networks = self.consistency.module if wrapped else self.consistency
        loss, log = self.parse_losses(networks.named(losses, 'cross'))
        optimizer.update_params(loss)
        log['loss_cross'] = log.pop('loss')
        return log
