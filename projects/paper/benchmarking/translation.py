"""What is measured of image translation: a CENTranslator's step and prediction, and its rivals."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmengine.registry import HOOKS
from torch import Tensor, nn

from mmcen.core import exchange_norms
from mmcen.models.translators import CENTranslator

from .list_translator import ListTranslator, check_mirrors
from .workload import OURS, SEED, Workload

GRIDS = ('streams', 'tasks', 'cycle')


class TranslationWorkload(Workload):
    """As :class:`Workload`, of a config with a CENTranslator.

    Rivals: ``exchange_off``; ``list_of_streams``, the official code's step; ``list_detached``, the
    same without unused gradients. Grids: ``streams=N`` inputs to one target,
    ``tasks=N`` targets of one input, ``cycle=N`` flows of N - 1 inputs each.
    """

    rivals = ('exchange_off', 'list_of_streams', 'list_detached')
    on_request = ('fp32',)

    def check(self, names: Any) -> None:
        if any(name.startswith('list') for name in names):
            check_mirrors(self.build_model())

    def build_model(self, grid: str | None = None) -> nn.Module:
        """The config's model, or one with the tasks of a grid in their place."""
        if grid is None:
            return super().build_model()
        work = deepcopy(self)
        work.cfg.model.tasks = tasks_of(grid)
        return work.build_model()

    def build(self, name: str) -> TranslationVariant:
        """Build 'ours', a rival or a grid; equal weights, equal data."""
        if name == 'fp32':
            return replace(self, precision=name).build(OURS)
        torch.set_num_threads(self.threads)
        model = self.build_model(name if '=' in name else None)
        inputs = self.random_domains(model)
        if name == 'exchange_off':
            for _, norm in list(exchange_norms(model)):
                norm.exchange = False
        elif name.startswith('list'):
            model = ListTranslator(model, detached=name == 'list_detached')
        return TranslationVariant(self, model, inputs)

    def random_domains(self, model: CENTranslator) -> dict[str, Tensor]:
        """Images of every domain, 0..255, as the dataset gives them."""
        generator = torch.Generator().manual_seed(SEED)
        shape = (self.batch, 3, *self.shape)
        return {
            name: 255 * torch.rand(shape, generator=generator).to(self.device)
            for name in model.names
        }

    def optim_wrapper(self) -> dict:
        """The config's, every part at this precision."""
        cfg = deepcopy(self.cfg.optim_wrapper)
        for part in cfg.values():
            if isinstance(part, dict):
                part.type = 'BFloat16OptimWrapper' if self.precision == 'bf16' else 'OptimWrapper'
        return cfg


class TranslationVariant:
    """A model with its optimizers and data, ready to be run."""

    def __init__(
        self, work: Workload, model: CENTranslator | ListTranslator, inputs: dict[str, Tensor]
    ) -> None:
        self.work, self.model, self.domains = work, model, inputs
        self.wrapper: OptimWrapperDict = build_optim_wrapper(model, work.optim_wrapper())
        self.optimizers = [part.optimizer for part in self.wrapper.values()]
        self.inputs = list(inputs.values())
        self.coefficient = 0.0
        sparsity = work.sparsity()
        if sparsity is not None:
            hook = HOOKS.build(sparsity)
            if isinstance(model, ListTranslator):
                self.coefficient = hook.coefficient
            else:
                hook.attach(model, *self.optimizers)

    def run(self, task: str) -> Tensor:
        """Run 'train_step' or 'inference' once; the loss, or the images."""
        return getattr(self, task)()

    def prepare(self, task: str) -> None:
        """Put the model into the mode that a task runs in."""
        self.model.train(task == 'train_step')

    def train_step(self) -> Tensor:
        """All of a step, from the preprocessor to the optimizers."""
        if isinstance(self.model, ListTranslator):
            return self.model.step(self.normalised(), self.wrapper, self.coefficient)
        log = self.model.train_step({'inputs': dict(self.domains)}, self.wrapper)
        return log['loss']

    @torch.no_grad()
    def inference(self) -> Tensor:
        """Images of the first task, all streams and the ensemble side by side."""
        with self.work.autocast():
            if isinstance(self.model, ListTranslator):
                xs = [self.normalised()[name] for name in self.model.inputs]
                images, ensemble = self.model.generate(xs)
                return torch.cat([ensemble, *images], 1)
            outputs = self.model.outputs(self.normalised())
            return torch.cat(list(next(iter(outputs.values())).values()), 1)

    def normalised(self) -> dict[str, Tensor]:
        return {name: (x - 127.5) / 127.5 for name, x in self.domains.items()}


def tasks_of(grid: str) -> list[dict]:
    """Tasks of ``streams=N``, ``tasks=N`` or ``cycle=N``.

    Examples:
        >>> tasks_of('cycle=2')
        [{'name': 'x0', 'inputs': ['x1']}, {'name': 'x1', 'inputs': ['x0']}]
    """
    kind, _, count = grid.partition('=')
    names = [f'x{i}' for i in range(int(count))]
    if kind == 'streams':
        tasks = {'y': names}
    elif kind == 'tasks':
        tasks = {name: ['y'] for name in names}
    else:
        tasks = {name: [other for other in names if other != name] for name in names}
    return [dict(name=name, inputs=inputs) for name, inputs in tasks.items()]
