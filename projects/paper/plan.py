"""The trainings of a table's rows with given settings, and their state."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .experiments import Run, load
from .report import COSTS, Line
from .rows import EXCHANGED, Row, Table
from .store import Folder, folder


@dataclass(frozen=True)
class Settings:
    """Settings of a command line.

    Args:
        dataset: A key of experiments.DATASETS.
        epochs: Number of epochs; None for the schedule of the data set.
        seeds: Seeds of the trainings of each row.
        extractor: Inception weights, for FID and KID.
        options: Changes to the configs of all rows.
        work_dir: Folder of the runs.
        metrics: Metrics to show in addition to those of the paper.
    """

    dataset: str
    epochs: int | None
    seeds: tuple[int, ...]
    extractor: str | None
    options: Mapping[str, Any]
    work_dir: Path
    metrics: tuple[str, ...] = ()


class RunPlan:
    """A table with settings."""

    def __init__(self, table: Table, settings: Settings) -> None:
        self.table = table
        self.settings = settings
        self._folders: dict[tuple[str, str], list[Folder]] = {}  # hashing a config takes a while

    def missing(self, row: Row) -> Iterator[str]:
        """Yield reasons why a row, or a part of it, is not run."""
        if not row.runs:
            yield row.why
        elif not self.runs(row):
            where = ', '.join(row.datasets())
            yield f'needs --dataset {where}, not {self.settings.dataset}'
        elif row.why:
            yield row.why
        of_features = any(c.endswith(('/FID', '/KID')) and v for c, v in row.published.items())
        if self.runs(row) and of_features and not self.settings.extractor:
            yield 'FID and KID need --extractor'

    def runs(self, row: Row) -> dict[str, Run]:
        """Return the runs of a row that the data set supports."""
        return row.runs_on(self.settings.dataset)

    def config(self, run: Run, seed: int) -> Config:
        cfg = load(run, self.settings.dataset, self.settings.extractor)
        if self.settings.epochs:
            cfg.train_cfg.max_epochs = self.settings.epochs
            cfg.train_cfg.val_interval = self.settings.epochs
        cfg.randomness = dict(seed=seed)
        try:
            cfg.merge_from_dict(dict(self.settings.options))
        except (KeyError, TypeError) as error:
            raise ValueError(f'--cfg-options do not fit {run.config}: {error.args[0]}') from error
        return cfg

    def of_seeds(self, name: str, part: str, run: Run) -> list[Folder]:
        """Return the folders of a run, one for each seed."""
        if (name, part) not in self._folders:
            label = '_'.join(filter(None, [self.table.name, name.replace('/', '.'), part]))
            where = self.settings.work_dir / self.settings.dataset / 'runs'
            self._folders[name, part] = [
                folder(where, f'{label}_seed{seed}', self.config(run, seed))
                for seed in self.settings.seeds
            ]
        return self._folders[name, part]

    def folders(self, name: str, row: Row, without: Container[str] = ()) -> list[Folder]:
        """Return the folders of a row, except those of parts that are left out."""
        runs = {part: run for part, run in self.runs(row).items() if part not in without}
        return [f for part, run in runs.items() for f in self.of_seeds(name, part, run)]

    def line(self, name: str, row: Row, command: str) -> Line:
        """Return the row with its measured figures."""
        line = Line(name, dict(row.published), note='; '.join(self.missing(row)))
        states: list[str] = []
        runs = self.runs(row)
        for part, run in runs.items():
            found = self.of_seeds(name, part, run)
            states += [one.state for one in found]
            for seed, one in zip(self.settings.seeds, found, strict=True):
                if (result := one.result) is None:
                    continue
                values = dict(result['metrics'])
                if result['exchanged'] is not None:
                    values[EXCHANGED] = 100 * result['exchanged']
                    line.exchanged.append(result['exchanged'])
                for metric, value in values.items():
                    column = f'{part}/{metric}' if part else metric
                    if row.shows(column, metric) or metric in self.settings.metrics:
                        line.measured.setdefault(column, {})[seed] = value
                if part == list(runs)[-1]:  # the costs of the row are those of its last part
                    line.costs.update({k: result[k] for k in COSTS})
        if states:
            counts = {s: states.count(s) for s in dict.fromkeys(states)}
            words = ', '.join(f'{n} {state}' for state, n in counts.items())
            line.note = '; '.join(filter(None, [words, line.note]))
            line.command = command if line.measured else ''
        return line
