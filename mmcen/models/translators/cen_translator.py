"""Image translation with channel exchange: pix2pix over the stream grid, all four settings."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from mmengine.logging import MessageHub
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.registry import MODELS
from torch import Tensor, nn

from ...compat import importable_mmagic
from ...layers.winograd import save_multiplications
from ...outputs import ENSEMBLE
from ..multitask.cen_multitask import CENMultiTask, Outputs

FLOWS = ('all', 'random')


class TaskDiscriminators(nn.Module):
    """One discriminator for each task.

    It is a separate module because a distributed wrapper has to see its calls.

    Input: task to ``(N, 6, H, W)``, condition and image. Output: task to logits.
    """

    def __init__(self, tasks: Sequence[str], cfg: dict) -> None:
        super().__init__()
        self.by_task = nn.ModuleDict({task: MODELS.build(dict(cfg)) for task in tasks})
        save_multiplications(self.by_task)

    def forward(self, pairs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the logits of each task."""
        return {task: self.by_task[task](pair) for task, pair in pairs.items()}


@MODELS.register_module()
class CENTranslator(CENMultiTask):
    """:class:`CENMultiTask` with a conditional discriminator per task that judges its streams.

    Each step runs the network once. First the discriminators are updated by its outputs, then the
    network by the discriminators (GAN loss) and the heads (L1), then the scores of the ensemble by
    its L1 loss. Each of the three has an optimizer, ``network``, ``discriminators`` and
    ``ensemble`` of an ``OptimWrapperDict``, as mmagic's ``MultiOptimWrapperConstructor`` makes
    them. As in the official code, the discriminators judge the streams, not the ensemble.

    Args:
        discriminator: Config of a discriminator, such as mmagic's PatchDiscriminator. Tasks with a
            ClassHead have none.
        gan_loss: Config of a GAN loss on logits, such as mmagic's GANLoss.
        train_cfg: ``flow='all'`` trains all tasks in every step; ``'random'`` draws one by the
            number of the step (CEN-random of Table 6), the same in all processes.
        kwargs: Arguments of :class:`CENMultiTask`.

    Raises:
        ImportError: If mmagic is not installed.
        ValueError: As for CENMultiTask, or if the flow is unknown.
    """

    def __init__(
        self,
        tasks: Sequence[Mapping[str, Any]],
        network: dict,
        discriminator: dict,
        gan_loss: dict,
        train_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        import_mmagic()
        super().__init__(tasks, network, **kwargs)
        self.judged = [task for task, head in self.heads.items() if head.of_images]
        if not self.judged:
            raise ValueError(
                f'none of the tasks {list(self.tasks)} is an image that a discriminator could '
                'judge: use CENMultiTask'
            )
        self.discriminators = TaskDiscriminators(self.judged, discriminator)
        self.gan_loss = MODELS.build(gan_loss)
        self.flow = (train_cfg or {}).get('flow', 'all')
        if self.flow not in FLOWS:
            raise ValueError(f"flow must be one of {FLOWS}, got '{self.flow}'")

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the state dict without the names of distributed wrappers.

        One process and several then save the same names. mmengine ignores the wrappers in loading,
        but not in saving.
        """
        state = super().state_dict(*args, **kwargs)
        wrapped = [name for name, child in self.named_children() if is_model_wrapper(child)]
        for prefix in (f'{name}.module.' for name in wrapped):
            for key in [key for key in state if key.startswith(prefix)]:
                state[key.replace('.module.', '.', 1)] = state.pop(key)
        return state

    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """Update all parts on a batch, and return losses for the log."""
        data = self.data_preprocessor(data, True)
        domains = self._by_name(data['inputs'])
        targets = self.targets(domains, data.get('data_samples'))
        with optim_wrapper['network'].optim_context(self.network):
            outputs = self._in_flow(self.outputs(self.drawn(domains)))
        log = self._learn(domains, outputs, targets, optim_wrapper)
        return {'loss': log.pop('network'), 'loss_ensemble': log.pop('ensemble'), **log}

    def _learn(
        self,
        domains: dict[str, Tensor],
        outputs: Outputs,
        targets: dict[str, Tensor],
        optim_wrapper: OptimWrapperDict,
    ) -> dict[str, Tensor]:
        """Update all parts by the outputs of one pass, and return losses for the log."""
        fakes = self._fakes(outputs)
        reals = {task: dict.fromkeys(images, targets[task]) for task, images in fakes.items()}
        log = self._train_discriminators(domains, fakes, reals, optim_wrapper)
        with optim_wrapper['network'].optim_context(self.network):
            losses = self.loss(outputs, targets) | self._gan_losses(domains, fakes)
        of_ensemble = {key: losses.pop(key) for key in list(losses) if f'.{ENSEMBLE}.' in key}
        for name, part in (('network', losses), ('ensemble', of_ensemble)):
            loss, values = self.parse_losses(part)
            self._update(name, loss, optim_wrapper)
            log |= {name if key == 'loss' else key: value for key, value in values.items()}
        return log

    def _update(self, name: str, loss: Tensor, optim_wrapper: OptimWrapperDict) -> None:
        """Update a part by its loss."""
        optim_wrapper[name].update_params(loss)

    def _fakes(self, outputs: Outputs) -> Outputs:
        """Select the outputs of streams that discriminators judge."""
        return {
            task: {name: y for name, y in outputs[task].items() if name != ENSEMBLE}
            for task in self.judged
            if task in outputs
        }

    def _in_flow(self, outputs: Outputs) -> Outputs:
        """Select the tasks that this step trains."""
        if self.flow == 'all':
            return outputs
        task = random.Random(iteration()).choice(list(outputs))
        return {task: outputs[task]}

    def _train_discriminators(
        self,
        domains: dict[str, Tensor],
        fakes: Outputs,
        reals: Outputs,
        optim_wrapper: OptimWrapperDict,
    ) -> dict[str, Tensor]:
        if not fakes:  # this step's task has no discriminator
            return {}
        optimizer = optim_wrapper['discriminators']
        with optimizer.optim_context(self.discriminators):
            # real and generated images in one batch: instance norms treat them separately
            pairs = {
                task: torch.cat(
                    [
                        self._pairs(domains, task, fakes[task]).detach(),
                        self._pairs(domains, task, real),
                    ]
                )
                for task, real in reals.items()
            }
            losses = {}
            for task, logits in self.discriminators(pairs).items():
                fake, real = logits.float().chunk(2)
                weight = 0.5 * len(fakes[task])  # a mean for each stream, summed over them
                losses[f'{task}.loss_d_fake'] = weight * self.gan_loss(fake, False, is_disc=True)
                losses[f'{task}.loss_d_real'] = weight * self.gan_loss(real, True, is_disc=True)
        loss, log = self.parse_losses(losses)
        optimizer.update_params(loss)
        log['loss_d'] = log.pop('loss')
        return log

    def _gan_losses(self, domains: dict[str, Tensor], fakes: Outputs) -> dict[str, Tensor]:
        pairs = {task: self._pairs(domains, task, images) for task, images in fakes.items()}
        with frozen(self.discriminators) as discriminators:
            return {
                f'{task}.loss_gan': len(fakes[task]) * self.gan_loss(logits.float(), True)
                for task, logits in discriminators(pairs).items()
            }

    def _pairs(self, domains: dict[str, Tensor], task: str, images: dict[str, Tensor]) -> Tensor:
        """Join input and image of each stream, ``(M*B, 6, H, W)``; a fused one has the first."""
        inputs = list(self.plan.tasks[task])[:1] if self.merged else list(images)
        conditions = torch.cat([domains[name] for name in inputs])
        return torch.cat([conditions, torch.cat(list(images.values()))], 1)

    @property
    def tasks(self) -> Mapping[str, Sequence[str]]:
        """Inputs of each target."""
        return self.plan.tasks


def iteration() -> int:
    """Return the number of the training step."""
    return MessageHub.get_current_instance().get_info('iter', 0)


@contextmanager
def frozen(wrapped: nn.Module) -> Iterator[nn.Module]:
    """Yield a module without its distributed wrapper, whose parameters take no gradients.

    The wrapper would wait for the gradients.
    """
    module = wrapped.get_submodule('module') if is_model_wrapper(wrapped) else wrapped
    module.requires_grad_(False)
    try:
        yield module
    finally:
        module.requires_grad_(True)


def import_mmagic() -> None:
    """Register mmagic's parts, which only translation needs.

    Raises:
        ImportError: mmagic is not installed.
    """
    if find_spec('mmagic') is None:
        raise ImportError(
            'image translation needs mmagic, which is not installed: pip install -e '
            "'.[translation]' and then pip install --no-deps mmagic==1.2.0"
        )
    with importable_mmagic():
        import mmagic.engine
        import mmagic.models  # noqa: F401
