"""Changes of a config that test on some modalities, or on changed ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS

from ..modalities import modality_names, sources_of
from ..models.multitask.plan import Plan


def known_inputs(cfg: Config) -> list[str]:
    """Names of the inputs of a config's model, in the order of the streams.

    Raises:
        ValueError: If it is no model of mmcen.
    """
    model = _model(cfg)
    if 'tasks' in model:
        return list(Plan(model.tasks).domains)
    listed = (model.get('data_preprocessor') or {}).get('modalities')
    if not listed:
        raise ValueError(f'{model.get("type")} has no modalities: give the config of a CEN')
    return modality_names(listed)


def predict_from(cfg: Config, names: Sequence[str]) -> None:
    """Test on some of the model's inputs: the files of the others are not read.

    Args:
        cfg: Changed in place.
        names: The inputs that are present. Tasks without any of them are not measured.

    Raises:
        ValueError: If a name is unknown, none is given, or no task that is measured has one.
    """
    known = known_inputs(cfg)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f'modalities {unknown or list(names)} are unknown: choose of {known}')
    wanted = set(names)
    model = _model(cfg)
    if 'tasks' in model:
        present = [name for name in known if name in wanted]
        model.test_cfg = {**(model.get('test_cfg') or {}), 'present': present}
        tasks = Plan(model.tasks).tasks
        without = {task for task, inputs in tasks.items() if wanted.isdisjoint(inputs)}
        cfg.test_evaluator = _leave_out(without, cfg.test_evaluator, present)
        wanted |= set(tasks)  # targets
    for dataset in leaves(cfg.test_dataloader.dataset):
        _keep(dataset, known, wanted)


def _model(cfg: Config) -> Any:
    """Return the config of the model, which may be inside one for test-time augmentation."""
    return cfg.model.get('module', cfg.model)


def _leave_out(tasks: set[str], evaluator: Any, present: Sequence[str]) -> list:
    """Return the metrics of an evaluator without those of some tasks."""
    kept = []
    for metric in evaluator if isinstance(evaluator, list) else [evaluator]:
        if isinstance(metric.get('metrics'), Mapping):  # by task
            left = {task: names for task, names in metric.metrics.items() if task not in tasks}
            kept += [{**metric, 'metrics': left}] if left else []
        elif metric.get('task') not in tasks:
            kept.append(metric)
    if not kept:
        raise ValueError(
            f'modalities {list(present)} are inputs of no task that the config measures, and '
            f'{sorted(tasks)} have none of them: name more'
        )
    return kept


def _keep(dataset: Any, known: Sequence[str], wanted: set[str]) -> None:
    """Let a data set load some modalities alone, and those that they are made of."""
    stages = dataset.get('pipeline') or []
    made = sources_of([*known, *wanted], stages)
    sources = {source for name, source in made.items() if name in wanted}
    kind = DATASETS.get(dataset['type'])
    listed = dataset.get('modalities') or list(getattr(kind, 'MODALITIES', {})) or list(known)
    names = modality_names(listed)
    dropped = {source for name, source in made.items() if name not in wanted} - sources
    dataset['modalities'] = [
        entry for entry, name in zip(listed, names, strict=True) if name not in dropped
    ]
    dataset['pipeline'] = list(_stages_of(stages, dropped, wanted))


def _stages_of(stages: Sequence[dict], dropped: set[str], wanted: set[str]) -> Iterator[dict]:
    """Yield the stages of a pipeline without those of dropped modalities alone."""
    for stage in stages:
        stage = dict(stage)
        if stage['type'] == 'DepthToHHA':
            if stage.get('name', 'hha') not in wanted:
                continue
            stage['keep'] = stage.get('keep', False) and stage.get('source', 'depth') in wanted
        if stage['type'] == 'CorruptModality' and stage['modality'] in dropped:
            continue
        if only := stage.get('only'):
            names = [only] if isinstance(only, str) else only
            stage['only'] = [name for name in names if name not in dropped]
            if not stage['only']:
                continue
        yield stage


def treat_empty(cfg: Config, word: str) -> None:
    """Set how the test data handle empty modalities, see ``LoadModalities``.

    Raises:
        ValueError: If a data set does not load its modalities by ``LoadModalities``.
    """
    for dataset in leaves(cfg.test_dataloader.dataset):
        loaders = [s for s in dataset.get('pipeline') or [] if s['type'] == 'LoadModalities']
        if not loaders:
            raise ValueError(
                f'{dataset["type"]} does not load by LoadModalities, which looks for modalities '
                'without content: leave --treat-empty out'
            )
        loaders[0]['empty'] = word
    cfg.test_dataloader.batch_size = 1  # frames of a batch have the same modalities


def change_modality(cfg: Config, stage: dict) -> None:
    """Apply a transform to the modalities of the test set as soon as they are loaded."""
    for dataset in leaves(cfg.test_dataloader.dataset):
        stages = list(dataset.get('pipeline') or [])
        types = [one['type'] for one in stages]
        place = types.index('LoadModalities') + 1 if 'LoadModalities' in types else 0
        dataset['pipeline'] = [*stages[:place], ConfigDict(stage), *stages[place:]]


def leaves(dataset: Any) -> Iterator[Any]:
    """Yield the configs of the data sets inside wrappers."""
    if 'datasets' in dataset:
        for one in dataset['datasets']:
            yield from leaves(one)
    elif 'dataset' in dataset:
        yield from leaves(dataset['dataset'])
    else:
        yield dataset
