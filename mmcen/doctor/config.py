"""Examine a config: streams, norms, parameters, data, and a picture of three samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, HOOKS, MODELS, init_default_scope

from ..core import Budget, exchange_norms
from ..engine.options import read_config
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


def examine(path: str, picture_file: Path, options: dict | None = None) -> Report:
    """Build all parts of a config except its runner, and examine them.

    Args:
        path: config file.
        picture_file: where the samples are drawn.
        options: overrides of entries, as --cfg-options.

    Raises:
        FileNotFoundError: there is no such config.
        ValueError: it cannot be read, or describes no model.
    """
    cfg = read_config(path, options)
    if 'model' not in cfg:
        raise ValueError(f'{path} has no model: give one that trains, such as of configs/cen/')
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    report = Report()
    looks: dict[str, Callable[[], None]] = {
        'model': lambda: _model(cfg, report),
        'schedule': lambda: _schedule(cfg, report),
    }
    for split in ('train', 'val', 'test'):
        if cfg.get(f'{split}_dataloader'):  # mmengine writes None where there is none
            looks[f'{split} data'] = partial(_data, cfg, split, report, picture_file)
    for topic, look in looks.items():
        say(topic)
        try:
            look()
        except Exception as error:  # whatever it is, it would keep it from training
            report.problems.append(f'{topic}: {_first_line(error)}')
    return report


def _model(cfg: Config, report: Report) -> None:
    with torch.device('meta'):  # its sizes, no memory
        model: Any = MODELS.build(deepcopy(cfg.model))
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


def _schedule(cfg: Config, report: Report) -> None:
    train, wrapper = cfg.get('train_cfg') or {}, cfg.get('optim_wrapper') or {}
    length = train.get('max_epochs') or train.get('max_iters')
    unit = 'epochs' if 'max_epochs' in train else 'iterations'
    if length:
        report.facts['schedule'] = [f'{length} {unit}']
    parts = {'': wrapper} if 'optimizer' in wrapper else wrapper
    for name, part in parts.items():
        if isinstance(part, dict) and 'optimizer' in part:
            optimizer = part['optimizer']
            rate = f', lr {optimizer["lr"]:g}' if 'lr' in optimizer else ''
            report.facts.setdefault('schedule', []).append(
                f'{name + ": " if name else ""}{optimizer["type"]}{rate}'
            )


def _data(cfg: Config, split: str, report: Report, picture_file: Path) -> None:
    loader = cfg[f'{split}_dataloader']
    dataset = DATASETS.build(deepcopy(loader.dataset))
    frames = len(dataset)
    lines = [f'{loader.dataset.type}: {frames} frames, batches of {loader.batch_size}']
    report.facts[f'{split} data'] = lines
    if split == 'train':
        samples = [dataset[i * frames // SAMPLES] for i in range(min(SAMPLES, frames))]
        lines += _describe(samples, dataset)
        missing = [name for name in _wanted(cfg) if name not in samples[0]['inputs']]
        if missing:
            report.problems.append(
                f'the model wants {missing}, the samples have {list(samples[0]["inputs"])}: add '
                'them to the modalities of the data set'
            )
        report.sheet = _draw(samples, dataset, picture_file)


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
    lines = str(error).strip().splitlines() or ['']
    return (
        lines[0]
        if isinstance(error, (ValueError, OSError))
        else (f'{type(error).__name__}: {lines[0]}')
    )
