"""One training of several that share a GPU: ``python -m projects.paper.gpu.train JOB`` (JSON).

A plain loop over frames in the memory of the device, with the config's model, losses, rates,
augmentation and metric. It prints JSON lines: first ``{"seconds_per_epoch": ...}``, measured while
the others run too. Then it reads a number of epochs from standard input, trains that many, and
tests. A step never waits for another process.

Job: ``method``, ``config``, ``cfg_options``, ``frames``, ``weights`` (or null), ``device``,
``precision`` (fp32 or bf16), ``seed``, ``limit`` (frames of each split, or null), ``trial`` (steps
to measure).
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, METRICS, MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from mmcen.budget import ExchangeBudget
from mmcen.core import exchange_norms, exchanged_share
from mmcen.datasets.nyuv2 import CLASSES
from mmcen.engine.hooks import ExchangeBudgetHook, SparsityHook

from . import frames

WARM = 0.1  # where the learning rate starts in the first epoch, as the config's schedule


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


class Training:
    """Model, optimizer and frames of a job."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.cfg = read_config(job)
        self.batch = self.cfg.train_dataloader.batch_size
        self.ratios = scale_range(self.cfg)
        self.train = self._load('train')
        self.generator = torch.Generator(job['device'])
        self.restart()

    def _load(self, split: str) -> frames.Frames:
        job = self.job
        return frames.load(Path(job['frames']), split, job['device'], job['limit'])

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train) // self.batch

    def restart(self) -> None:
        """Everything from the seed on."""
        torch.manual_seed(self.job['seed'])
        self.generator.manual_seed(self.job['seed'])
        model = revert_sync_batchnorm(MODELS.build(self.cfg.model))
        model.init_weights()
        self.model = model.to(self.job['device'], memory_format=torch.channels_last)
        self.wrapper = build_optim_wrapper(self.model, self.cfg.optim_wrapper)
        self.rates = [group['lr'] for group in self.wrapper.optimizer.param_groups]
        self.budget: ExchangeBudget | None = None
        for hook in map(HOOKS.build, self.cfg.custom_hooks):
            if isinstance(hook, SparsityHook):
                hook.attach(self.model, self.wrapper.optimizer)
            elif isinstance(hook, ExchangeBudgetHook):
                self.budget = hook.make_budget(self.model)

    def seconds_per_epoch(self, steps: int) -> float:
        """Measure after as many steps to get warm."""
        self.run_epochs(1, stop=steps)
        self._wait()
        start = time.perf_counter()
        self.run_epochs(1, stop=steps)
        self._wait()
        done = min(steps, self.steps_per_epoch)
        return (time.perf_counter() - start) / done * self.steps_per_epoch

    def _wait(self) -> None:
        if self.job['device'] == 'cuda':
            torch.cuda.synchronize()

    def run_epochs(self, epochs: int, stop: int | None = None) -> None:
        """Train; a training that is meant to end reports each epoch.

        Args:
            epochs: Epochs of the learning rate's schedule.
            stop: Steps after which to end, without a report; None trains all epochs.
        """
        self.model.train()
        total, step = epochs * self.steps_per_epoch, 0
        if self.budget is not None:
            self.budget.start(0, total)
        for number in range(1, epochs + 1):
            losses = torch.zeros((), device=self.job['device'])
            for inputs, label in frames.epoch(self.train, self.batch, self.ratios, self.generator):
                self._set_rates(step, total)
                losses += self._step(inputs, label)
                step += 1
                if self.budget is not None:
                    self.budget.step(step, total)
                if step == stop:
                    return
            if stop is None:
                self._report(number, losses.item() / self.steps_per_epoch)

    def _report(self, number: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise ValueError(f'the loss of epoch {number} is {loss}: lower the learning rate')
        say(epoch=number, loss=round(loss, 4), exchanged=exchanged(self.model))

    def _set_rates(self, step: int, total: int) -> None:
        """Linear in the first epoch, then a cosine to 0: the config's schedule."""
        first = self.steps_per_epoch
        if step < first:
            factor = WARM + (1 - WARM) * step / max(1, first - 1)
        else:
            factor = 0.5 * (1 + math.cos(math.pi * (step - first) / (total - first)))
        for group, rate in zip(self.wrapper.optimizer.param_groups, self.rates, strict=True):
            group['lr'] = factor * rate

    def _step(self, inputs: dict[str, Tensor], label: Tensor) -> Tensor:
        samples = [sample_of(one, self.train.size) for one in label]
        data = {'inputs': {k: list(v) for k, v in inputs.items()}, 'data_samples': samples}
        return self.model.train_step(data, self.wrapper)['loss'].detach()

    @torch.no_grad()
    def test(self) -> dict[str, float]:
        """Scores on the test split at full size, by the config's metric, in fp32."""
        self.model.eval()
        test = self._load('test')
        evaluator = Evaluator([METRICS.build(self.cfg.test_evaluator)])
        evaluator.dataset_meta = {'classes': CLASSES}
        for start in range(0, len(test), self.batch):
            where = slice(start, start + self.batch)
            samples = [sample_of(one, test.size) for one in test.label[where].long()]
            inputs = {k: list(v) for k, v in test.inputs(where).items()}
            data = {'inputs': inputs, 'data_samples': samples}
            evaluator.process(self.model.test_step(data), data)
        return {k: float(v) for k, v in evaluator.evaluate(len(test)).items()}


def read_config(job: dict[str, Any]) -> Config:
    """The config at this precision, with the weights of the job."""
    cfg = Config.fromfile(job['config'])
    cfg.merge_from_dict(job['cfg_options'])
    init_default_scope(cfg.default_scope)
    weights = job['weights'] and {'type': 'Pretrained', 'checkpoint': job['weights']}
    cfg.model.backbone.init_cfg = weights
    cfg.optim_wrapper.type = 'BFloat16OptimWrapper'
    cfg.optim_wrapper.enabled = job['precision'] == 'bf16'
    return cfg


def scale_range(cfg: Config) -> tuple[float, float]:
    """The range of the config's RandomResize.

    Raises:
        ValueError: If the config augments otherwise than this loop does.
    """
    steps = [
        inner
        for step in cfg.train_dataloader.dataset.pipeline
        for inner in step.get('transforms', [step])
    ]
    kinds = [s.type for s in steps if not s.type.startswith(('Load', 'Pack'))]
    if kinds != ['RandomResize', 'RandomCrop', 'RandomFlip']:
        raise ValueError(f'the loop does RandomResize, RandomCrop, RandomFlip; got {kinds}')
    return tuple(next(s.ratio_range for s in steps if s.type == 'RandomResize'))


def sample_of(label: Tensor, size: tuple[int, int]) -> SegDataSample:
    """A sample of a label ``(1, H, W)``; predictions are resized to its size."""
    meta = {'img_shape': size, 'pad_shape': size, 'ori_shape': tuple(label.shape[1:])}
    return SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=label))


def exchanged(model: torch.nn.Module) -> float:
    """Mean share of replaced channels; 0 where no norm exchanges."""
    return exchanged_share(model).mean().item() if any(exchange_norms(model)) else 0.0


def main(job: dict[str, Any]) -> None:
    MMLogger.get_instance('gpu', log_level='ERROR')
    training = Training(job)
    if job['device'] == 'cuda':
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision('high')
    say(seconds_per_epoch=training.seconds_per_epoch(job['trial']))
    line = sys.stdin.readline()
    if not line.strip():  # the parent ended
        return
    training.restart()
    start = time.perf_counter()
    training.run_epochs(int(line))
    seconds = time.perf_counter() - start
    say(epochs=int(line), seconds=seconds, exchanged=exchanged(training.model), **training.test())


if __name__ == '__main__':
    main(json.loads(sys.argv[1]))
