"""Examine a config: build every part, and draw a picture of three samples."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, MODELS, init_default_scope
from mmengine.runner import Runner

from ..core import Budget, exchange_norms
from ..engine.launch import protect, said
from ..engine.options import check_metrics, read_config
from ..layers import ExchangeNorm
from ..models.backbones.efficientnet_lite import PREFIX, weights_file
from ..visualization.sheet import class_colours, draw_sheet, picture
from .environment import say

SAMPLES = 3


@dataclass
class Report:
    """What was found.

    Attributes:
        facts: lines by topic.
        problems: what keeps it from training, each with what mends it.
        sheet: the picture, if there are samples.
    """

    facts: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    sheet: Path | None = None


def examine(path: str, picture_file: Path | None, options: dict | None = None) -> Report:
    """Build everything of a config, as a training does, and compute a loss of two frames.

    Args:
        path: config file.
        picture_file: where the samples are drawn; None draws none.
        options: overrides of entries, as --cfg-options.

    Raises:
        FileNotFoundError: there is no such config.
        ValueError: it cannot be read, or describes no model.
    """
    cfg = read_config(path, options)
    if not isinstance(cfg.get('model'), Mapping):
        raise ValueError(f'{path} has no model: give one that trains, such as of configs/cen/')
    report = Report()
    with TemporaryDirectory() as folder:
        parts = _TrainingParts(cfg, report, folder)
        looks: dict[str, Callable[[], None]] = {
            'settings': parts.prepare,
            'model': parts.build_model,
            'hooks': parts.build_runner,
        }
        for split in ('train', 'val', 'test'):
            if cfg.get(f'{split}_dataloader'):  # mmengine writes None where there is none
                looks[f'{split} data'] = partial(parts.build_data, split, picture_file)
        looks |= {'schedule': parts.build_schedule, 'a step': parts.try_step}
        for topic, look in looks.items():
            say(topic)
            try:
                look()
            except Exception as error:  # whatever it is, it would keep it from training
                report.problems.append(f'{topic}: {_first_line(error)}')
    return report


class _Examined(Runner):
    """A runner that does not look for compilers, and keeps the config to itself."""

    def _log_env(self, env_cfg: dict) -> None:
        pass

    def dump_config(self) -> None:
        pass

    def build_visualizer(self, visualizer: Any) -> Any:
        """Start every backend, and give none the config: its layout takes a second each."""
        built = super().build_visualizer(visualizer)
        for backend in built._vis_backends.values():
            _ = backend.experiment
        built._vis_backends = {}
        return built


@dataclass
class _TrainingParts:
    """What a training is made of.

    A part that needs another one, which could not be built, is left out.
    """

    cfg: Config
    report: Report
    folder: str
    model: Any = None
    runner: Any = None
    loaders: dict[str, Any] = field(default_factory=dict)
    samples: list[dict] = field(default_factory=list)

    def prepare(self) -> None:
        """Take the safe parts, as a training does."""
        protect(self.cfg)
        init_default_scope(self.cfg.default_scope)
        check_metrics(self.cfg)

    def build_model(self) -> None:
        self.model = MODELS.build(deepcopy(self.cfg.model))
        _describe_model(self.cfg, self.model, self.report)

    def build_runner(self) -> None:
        """Hooks, visualizer and log, in a folder that is removed."""
        if self.model is None:
            return
        names = list(inspect.signature(Runner.__init__).parameters)[1:]
        given = {name: deepcopy(self.cfg[name]) for name in names if name in self.cfg}
        given |= {'model': self.model, 'work_dir': self.folder, 'log_level': 'CRITICAL'}
        given |= {'experiment_name': uuid4().hex, 'load_from': None, 'resume': False}
        given |= {'launcher': 'none', 'cfg': self.cfg}
        if isinstance(given.get('visualizer'), dict):  # the one of this name may be another run's
            given['visualizer']['name'] = given['experiment_name']
        self.runner = _Examined(**given)

    def build_data(self, split: str, picture_file: Path | None) -> None:
        given = self.cfg[f'{split}_dataloader']
        loader = Runner.build_dataloader(deepcopy(given), seed=0)
        dataset: Any = loader.dataset
        if not isinstance(loader.num_workers, int):
            raise ValueError(f'num_workers is {loader.num_workers}: give a whole number')
        frames = len(dataset)
        size = getattr(loader.batch_sampler, 'batch_size', None) or loader.batch_size
        lines = [f'{given["dataset"]["type"]}: {frames} frames, batches of {size}']
        self.report.facts[f'{split} data'] = lines
        if not len(loader):
            raise ValueError(f'{frames} frames give no batch of {size}: lower batch_size')
        self.loaders[split] = loader
        if split == 'train':
            samples = [dataset[i * frames // SAMPLES] for i in range(min(SAMPLES, frames))]
            lines += _describe(samples, dataset)
            missing = [name for name in _wanted(self.cfg) if name not in samples[0]['inputs']]
            if missing:
                self.report.problems.append(
                    f'the model wants {missing}, the samples have {list(samples[0]["inputs"])}: '
                    'add them to the modalities of the data set'
                )
                return
            self.samples = samples
            self.report.sheet = picture_file and _draw(samples, dataset, picture_file)

    def build_schedule(self) -> None:
        """Optimizers, schedules and loops."""
        _describe_schedule(self.cfg, self.report)
        runner, loaders = self.runner, self.loaders
        if runner is None or runner.optim_wrapper is None:
            return
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        if 'train' not in loaders:
            return
        for split, loader in loaders.items():
            setattr(runner, f'_{split}_dataloader', loader)
        runner._train_loop = runner.build_train_loop(runner._train_loop)
        if runner.param_schedulers is not None:
            runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
        for split, build in (('val', runner.build_val_loop), ('test', runner.build_test_loop)):
            if split in loaders and getattr(runner, f'_{split}_loop') is not None:
                build(getattr(runner, f'_{split}_loop'))

    def try_step(self) -> None:
        """A loss of two samples; weights change only where the loss cannot be had alone."""
        if len(self.samples) < 2 or self.runner is None:
            return
        model = self.model
        batch = self.loaders['train'].collate_fn(self.samples[:2])
        if type(model).train_step is BaseModel.train_step:
            with torch.no_grad():
                found = model(**model.data_preprocessor(batch, True), mode='loss')
            losses = model.parse_losses(found)[1]
        elif isinstance(self.runner.optim_wrapper, dict):  # it could not be built
            return
        else:
            losses = model.train_step(batch, self.runner.optim_wrapper)
        for name, value in losses.items():
            if not torch.isfinite(torch.as_tensor(value)).all():
                raise ValueError(f'{name} is {float(value)} before the training: check the data')


def _describe_model(cfg: Config, model: Any, report: Report) -> None:
    facts = report.facts
    network = getattr(model, 'network', model)
    grid = getattr(network, 'grid', None)
    if grid is not None:
        streams = list(model.streams)
        facts['streams'] = [
            f'{cfg.model.type}, {grid.tasks} x {grid.modalities} (tasks x modalities): '
            f'{_setting(model, grid)}',
            ', '.join(streams),
        ]
    norms = [m for m in model.modules() if isinstance(m, ExchangeNorm)]
    exchanging = dict(exchange_norms(model))
    facts['exchange'] = [
        f'{len(exchanging)} of {len(norms)} private norms exchange'
        + (f': {_compact(exchanging)}' if exchanging else ''),
    ]
    if exchanging:
        kinds = {
            f'{type(n).__name__}, along the {n.axis}, {n.selection}' for n in exchanging.values()
        }
        facts['exchange'] += sorted(kinds)
        facts['exchange'].append(_choosing(cfg, exchanging.values()))
    facts['parameters'] = [
        f'{name}: {count / 1e6:.3f} M'
        for name, child in model.named_children()
        if (count := sum(p.numel() for p in child.parameters()))
    ]
    total = sum(p.numel() for p in model.parameters())
    facts['parameters'].append(f'together: {total / 1e6:.3f} M')
    for part in (cfg.model, cfg.model.get('backbone') or {}):
        inits = part.get('init_cfg') or []
        for init in inits if isinstance(inits, list) else [inits]:
            if init['type'] == 'Pretrained':
                _weights(init['checkpoint'], report)


def _choosing(cfg: Config, norms: Iterable[ExchangeNorm]) -> str:
    """What chooses the exchanged channels in a training."""
    hooks = {h['type']: h for h in cfg.get('custom_hooks') or ()}
    if all(isinstance(norm.selection, Budget) for norm in norms):
        if 'ExchangeBudgetHook' in hooks:
            options = dict(hooks['ExchangeBudgetHook'])
            return f'{options.pop("type")}: {options or "defaults"}'
        return 'no ExchangeBudgetHook: the exchanged channels are evenly spread and stay the same'
    if 'SparsityHook' in hooks:
        return f'SparsityHook: coefficient {HOOKS.build(hooks["SparsityHook"]).coefficient:g}'
    return 'no SparsityHook: no scale is drawn to zero, so that little will be exchanged'


def _weights(checkpoint: str, report: Report) -> None:
    where = ''
    if checkpoint.startswith(PREFIX):
        try:
            where = f', {Path(weights_file()).name}'
        except ImportError as error:
            report.problems.append(str(error))
            return
    elif '://' in checkpoint:
        where = ', which is fetched'
    elif not Path(checkpoint).is_file():
        report.problems.append(
            f'the pretrained weights {checkpoint} are not there: --cfg-options '
            'model.backbone.init_cfg.checkpoint=FILE'
        )
        return
    report.facts['parameters'].append(f'starts from {checkpoint}{where}')


def _setting(model: Any, grid: Any) -> str:
    if grid.tasks == 1:
        return 'multimodal fusion' if grid.modalities > 1 else 'a single stream'
    if grid.modalities == 1:
        return 'multitask learning'
    tasks = model.plan.tasks
    cycle = any(task in inputs for inputs in tasks.values() for task in tasks)
    return 'cycle fusion' if cycle else 'multimodal multitask learning'


def _compact(names: Iterable[str]) -> str:
    """Where norms are: their parents, with how many."""
    counts: dict[str, int] = {}
    for name in names:
        parts = [part for part in name.split('.') if not part.isdigit()]
        place = '.'.join(parts[:2])
        counts[place] = counts.get(place, 0) + 1
    return ', '.join(f'{place} ({count})' for place, count in counts.items())


def _describe_schedule(cfg: Config, report: Report) -> None:
    train, wrapper = cfg.get('train_cfg') or {}, cfg.get('optim_wrapper') or {}
    length = train.get('max_epochs') or train.get('max_iters')
    unit = 'epochs' if 'max_epochs' in train else 'iterations'
    if length:
        report.facts['schedule'] = [f'{length} {unit}']
    parts = {'': wrapper} if 'optimizer' in wrapper else wrapper
    for name, part in parts.items():
        if isinstance(part, dict) and 'optimizer' in part:
            optimizer = part['optimizer']
            lr = optimizer.get('lr')
            rate = f', lr {lr:g}' if isinstance(lr, (int, float)) else ''
            report.facts.setdefault('schedule', []).append(
                f'{name + ": " if name else ""}{optimizer["type"]}{rate}'
            )


def _wanted(cfg: Config) -> list[str]:
    preprocessor = cfg.model.get('data_preprocessor') or {}
    modalities = [spec['name'] for spec in preprocessor.get('modalities') or ()]
    inputs = [name for task in cfg.model.get('tasks') or () for name in task['inputs']]
    return list(dict.fromkeys([*modalities, *inputs]))


def _describe(samples: list[dict], dataset: Any) -> list[str]:
    lines = []
    for name in samples[0]['inputs']:
        shapes = sorted({tuple(sample['inputs'][name].shape) for sample in samples})
        values = torch.cat([sample['inputs'][name].float().flatten() for sample in samples])
        lines.append(
            f'{name}: {" or ".join("x".join(map(str, s)) for s in shapes)} '
            f'{str(samples[0]["inputs"][name].dtype).removeprefix("torch.")}, '
            f'{values.min():.4g} to {values.max():.4g}, mean {values.mean():.4g}'
        )
    if 'gt_sem_seg' in samples[0]['data_samples']:
        found = np.unique(
            np.concatenate([s['data_samples'].gt_sem_seg.data.unique() for s in samples])
        )
        classes = dataset.metainfo.get('classes') or ()
        names = [classes[i] if i < len(classes) else 'void' for i in found]
        lines.append(f'classes in {len(samples)} frames: {", ".join(names)}')
    return lines


def _draw(samples: list[dict], dataset: Any, path: Path) -> Path:
    palette = dataset.metainfo.get('palette') or ()
    rows = []
    for sample in samples:
        panels = {name: picture(value) for name, value in sample['inputs'].items()}
        if palette and 'gt_sem_seg' in sample['data_samples']:
            panels['label'] = class_colours(sample['data_samples'].gt_sem_seg.data, palette)
        rows.append(panels)
    with_label = 'label' in rows[0]
    legend = (dataset.metainfo.get('classes') or (), palette) if with_label else ()
    return draw_sheet(rows, path, *legend)


def _first_line(error: Exception) -> str:
    lines = said(error).strip().splitlines() or ['']
    kind = '' if isinstance(error, (ValueError, OSError)) else f'{type(error).__name__}: '
    if isinstance(error, KeyError) and len(lines[0].split()) < 3:
        kind, lines = '', [f'the entry {lines[0]!r} is missing']
    return f'{_built(error)}{kind}{lines[0]}'


def _built(error: Exception) -> str:
    """The type of the part that was being built, the innermost one."""
    found = ''
    for frame, _ in traceback.walk_tb(error.__traceback__):
        given = frame.f_locals.get('cfg')
        if frame.f_code.co_name == 'build_from_cfg' and isinstance(given, Mapping):
            found = str(given.get('type', found))
    return f'{found}: ' if found else ''
