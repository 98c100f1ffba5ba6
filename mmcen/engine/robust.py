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
        """Write table, numbers and picture, and print the table."""
        first = self.done[self.cases[0].name]
        metric = 'mIoU' if 'mIoU' in first else next(iter(first))
        higher = metric.split('/')[-1] not in LOWER
        rows = [(case, self.done[case.name][metric]) for case in self.cases]
        title = f'{Path(self.checkpoint).name}, {self.frames} test frames'
        table = f'{title}\n\n{markdown(rows, metric, higher)}'
        write(self.folder / 'robust.md', table)
        write(self.folder / 'robust.csv', self._csv(rows, metric, higher))
        with whole_file(self.folder / 'robust.png') as part:
            draw(rows, metric, title).savefig(part, format='png', dpi=120)
        print(table)
        print(f'written: {self.folder}/robust.md, .csv, .json and .png')

    def _csv(self, rows: Sequence[tuple[Case, float]], metric: str, higher: bool) -> str:
        """All metrics of all rows, and the summary of the first one."""
        names = list(dict.fromkeys(name for found in self.done.values() for name in found))
        file = io.StringIO()
        writer = csv.DictWriter(file, ['group', 'case', *names], lineterminator='\n')
        writer.writeheader()
        for case in self.cases:
            writer.writerow({'group': case.group, 'case': case.name, **self.done[case.name]})
        for name, value in summary(rows, higher).items():
            writer.writerow({'group': 'summary', 'case': name, metric: value})
        return file.getvalue()


def _kinds(cfg: Config, inputs: Sequence[str]) -> dict[str, str]:
    """By modality that the test set loads for the inputs: colour, depth or raw."""
    dataset = next(iter(leaves(cfg.test_dataloader.dataset)))
    info = DATASETS.build({**dataset, 'lazy_init': True, 'pipeline': []}).modality_info
    sources = sources_of(inputs, dataset.get('pipeline') or [])
    return {name: _kind(info[name]) for name in dict.fromkeys(sources.values())}


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
