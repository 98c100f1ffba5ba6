"""Test a checkpoint on all subsets of its modalities and on corrupted ones, row by row."""

from __future__ import annotations

import csv
import io
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from rich.progress import track

from ..evaluation.robustness import Case, cases, draw, markdown, summary
from ..files import whole_file, write
from ..modalities import sources_of
from ..models.multitask.plan import Plan
from .present import change_modality, known_inputs, leaves, predict_from

LOWER = ('FID', 'KID', 'MAE', 'MSE', 'RMSE')  # is better


class RobustTest:
    """All rows of a checkpoint, each of which is kept as soon as it is done.

    Args:
        runner: Of the config's model, with the checkpoint loaded.
        cfg: The config, as it was before the runner was built.
        checkpoint: File of the checkpoint.
        folder: Where ``robust.json``, ``.csv``, ``.md`` and ``.png`` go.

    Raises:
        ValueError: If the model has too many inputs.
    """

    def __init__(self, runner: Runner, cfg: Config, checkpoint: str, folder: Path) -> None:
        self.runner, self.cfg, self.folder = runner, cfg, folder
        self.checkpoint = checkpoint
        inputs = known_inputs(cfg)
        self.cases = cases(inputs, _kinds(cfg, inputs))
        self.signature = _signature(cfg, checkpoint)
        self.file = folder / 'robust.json'
        self.frames = 0  # of the test set
        self.done: dict[str, dict[str, float]] = self._read()

    def _read(self) -> dict[str, dict[str, float]]:
        """Return the rows of an earlier run of the same config and checkpoint."""
        try:
            kept = json.loads(self.file.read_text(encoding='utf-8'))
            if kept['signature'] != self.signature:
                return {}
            self.frames = int(kept['frames'])
            return dict(kept['rows'])
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def run(self) -> None:
        """Test what is left, write the results after each row, and say what is to come."""
        left = [case for case in self.cases if case.name not in self.done]
        print(f'{len(self.cases)} rows, {len(self.cases) - len(left)} are done: {self.file}')
        for i, case in enumerate(left):
            start = time.monotonic()
            self.done[case.name] = self._test(case, f'{i + 1}/{len(left)} {case.name}')
            self._write()
            if i == 0 and len(left) > 1:
                minutes = (time.monotonic() - start) * (len(left) - 1) / 60
                print(f'the other {len(left) - 1} rows will take about {minutes:.0f} minutes')
        self._report()

    def _test(self, case: Case, title: str) -> dict[str, float]:
        """Return the metrics of one row."""
        cfg = deepcopy(self.cfg)
        if len(case.present) < len(self.cases[0].present):
            predict_from(cfg, case.present)
        if case.corruption:
            change_modality(cfg, dict(type='CorruptModality', **case.corruption))
        loader = Runner.build_dataloader(cfg.test_dataloader, seed=self.runner.seed)
        evaluator = self.runner.build_evaluator(deepcopy(cfg.test_evaluator))
        evaluator.dataset_meta = loader.dataset.metainfo
        self.frames = len(loader.dataset)
        model: Any = self.runner.model
        model.eval()
        with torch.no_grad(), _quiet(), _predicting_from(model, case, cfg):
            for batch in track(loader, title):
                evaluator.process(data_samples=model.test_step(batch), data_batch=batch)
            found = evaluator.evaluate(self.frames)
        return {name: float(value) for name, value in found.items()}

    def _write(self) -> None:
        kept = {
            'signature': self.signature,
            'checkpoint': self.checkpoint,
            'frames': self.frames,
            'rows': self.done,
        }
        write(self.file, json.dumps(kept, indent=1) + '\n')

    def _report(self) -> None:
        """Write tables, numbers and pictures, and print the tables."""
        title = f'{Path(self.checkpoint).name}, {self.frames} test frames'
        metrics = self._main_metrics()
        tables = [title]
        for metric in metrics:
            rows, higher = self._rows(metric)
            tables.append(markdown(rows, metric, higher))
            task = metric.rpartition('/')[0].replace('/', '_') if len(metrics) > 1 else ''
            with whole_file(self.folder / f'robust{"_" * bool(task)}{task}.png') as part:
                draw(rows, metric, title).savefig(part, format='png', dpi=120)
        write(self.folder / 'robust.md', '\n\n'.join(tables))
        write(self.folder / 'robust.csv', self._csv(metrics))
        print('\n\n'.join(tables))
        print(f'written: {self.folder}/robust.md, .csv, .json and .png')

    def _main_metrics(self) -> list[str]:
        """Return the name of a metric of each task: mIoU if it has it, else the first."""
        first = self.done[self.cases[0].name]
        tasks = Plan(self.cfg.model.tasks).tasks if 'tasks' in self.cfg.model else []
        own = [[n for n in first if n.rpartition('/')[0] == task] for task in tasks]
        return [
            next((name for name in names if name.split('/')[-1] == 'mIoU'), names[0])
            for names in [names for names in own if names] or [list(first)]
        ]

    def _rows(self, metric: str) -> tuple[list[tuple[Case, float]], bool]:
        """Return the cases that have a metric, and whether higher is better."""
        cases = [case for case in self.cases if metric in self.done[case.name]]
        rows = [(case, self.done[case.name][metric]) for case in cases]
        return rows, metric.split('/')[-1] not in LOWER

    def _csv(self, metrics: Sequence[str]) -> str:
        """All metrics of all rows, and the summary of the main ones."""
        names = list(dict.fromkeys(name for found in self.done.values() for name in found))
        file = io.StringIO()
        writer = csv.DictWriter(file, ['group', 'case', *names], lineterminator='\n')
        writer.writeheader()
        for case in self.cases:
            writer.writerow({'group': case.group, 'case': case.name, **self.done[case.name]})
        sums = {metric: summary(*self._rows(metric)) for metric in metrics}
        for name in dict.fromkeys(name for values in sums.values() for name in values):
            values = {metric: own[name] for metric, own in sums.items() if name in own}
            writer.writerow({'group': 'summary', 'case': name, **values})
        return file.getvalue()


def _kinds(cfg: Config, inputs: Sequence[str]) -> dict[str, str]:
    """By modality that the test set loads for the inputs: colour, depth or raw.

    An input that is also a target, as in a cycle, is left out: the target would be corrupted, too.
    """
    targets = [task['name'] for task in cfg.model.get('tasks', ())]
    dataset = next(iter(leaves(cfg.test_dataloader.dataset)))
    info = DATASETS.build({**dataset, 'lazy_init': True, 'pipeline': []}).modality_info
    sources = sources_of(inputs, dataset.get('pipeline') or [])
    return {n: _kind(info[n]) for n in dict.fromkeys(sources.values()) if n not in targets}


def _kind(spec: Any) -> str:
    if spec.kind == 'depth' or spec.domain.startswith('depth'):
        return 'depth'
    return 'colour' if spec.kind == 'colour' or spec.domain == 'rgb' else 'raw'


def _signature(cfg: Config, checkpoint: str) -> str:
    """Of what the results depend on."""
    parts = {key: cfg.get(key) for key in ('model', 'test_dataloader', 'test_evaluator')}
    digest = sha256(json.dumps(parts, default=str, sort_keys=True).encode())
    if Path(checkpoint).is_file():
        with open(checkpoint, 'rb') as file:
            while part := file.read(2**20):
                digest.update(part)
    return digest.hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the class tables of metrics, and the warnings that inputs are missing."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _predicting_from(model: Any, case: Case, cfg: Config) -> Iterator[None]:
    """Let a model of several tasks see the inputs of a case alone: batches have targets, too."""
    settings: Mapping[str, Any] = model.test_cfg if 'tasks' in cfg.model else {}
    if not settings:
        yield
        return
    model.test_cfg = {**settings, 'present': case.present}
    try:
        yield
    finally:
        model.test_cfg = settings
