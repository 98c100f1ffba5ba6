"""Read the logs of a training: curves, exchange by layer, scores by class."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..outputs import ENSEMBLE

Series = tuple[np.ndarray, np.ndarray]  # steps and values
EXCHANGE = 'exchange/'


@dataclass(frozen=True)
class RunLog:
    """Logs in a work directory of mmengine's runner.

    Args:
        work_dir: Work directory of a training.

    Raises:
        FileNotFoundError: If the directory does not exist, or has no log of a training.
    """

    work_dir: Path

    def __post_init__(self) -> None:
        if not self.work_dir.is_dir():
            raise FileNotFoundError(f'there is no directory {self.work_dir}')
        if not self.records:
            raise FileNotFoundError(
                f'{self.work_dir} has no log of a training, */vis_data/scalars.json: give the '
                'work directory of tools/train.py'
            )

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """All logged lines, of the first start and of resumed ones."""
        lines = []
        for path in sorted(self.work_dir.glob('*/vis_data/scalars.json')):
            for line in path.read_text(errors='replace').splitlines():
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):  # a killed training leaves an incomplete line
                    continue
                if isinstance(record, dict) and isinstance(record.get('step'), int):
                    lines.append(record)
        return lines

    @cached_property
    def training(self) -> dict[str, Series]:
        """Values that were logged in training steps, by name: losses, rates, shares, scores."""
        steps = [r for r in self.records if 'iter' in r]
        return _series(steps, 'iter', skip=('epoch', 'iter', 'step'))

    @cached_property
    def validation(self) -> dict[str, Series]:
        """Metrics by name and epoch (iteration, if training counts iterations)."""
        scores = [
            r for r in self.records if 'iter' not in r and not any(map(_of_exchange, r))
        ]  # fmt: skip
        return _series(scores, 'step', skip=('step', 'time', 'data_time'))

    @cached_property
    def exchange(self) -> dict[str, dict[str, Series]]:
        """Exchanged share of the channels, 0..1, by stream and layer."""
        found: dict[str, dict[str, Series]] = {}
        shares = [r for r in self.records if any(map(_of_exchange, r))]
        for name, series in _series(shares, 'step', skip=('step',)).items():
            layer, _, stream = name.removeprefix(EXCHANGE).partition('/')
            found.setdefault(stream, {})[layer] = series
        return found

    @cached_property
    def streams(self) -> list[str]:
        """Streams in the order of the model, as far as something was logged of them."""
        if self.exchange:
            return list(self.exchange)
        scores = [name.partition('/') for name in self.training]
        return [stream for kind, _, stream in scores if kind == 'alpha'] or [
            name for name in self.classes if name != ENSEMBLE
        ]

    def output_of(self, name: str) -> str:
        """Return the output that a logged value is about.

        Args:
            name: Name of the value, such as ``rgb/mIoU``, ``decode.rgb.loss_ce``, ``alpha/rgb``.

        Returns:
            A stream, or else what precedes the last part, without the words for a head and an
            ensemble: ``''`` for the ensemble of a segmentor, a task for that of the task.
        """
        parts = re.split('[/.]', name)
        for stream in self.streams:
            own = re.split('[/.]', stream)
            if any(parts[i : i + len(own)] == own for i in range(len(parts))):
                return stream
        return '/'.join(part for part in parts[:-1] if part not in ('decode', ENSEMBLE))

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Sort logged values: streams in the order of the model, then ensembles."""
        streams = self.streams
        places = {stream: i for i, stream in enumerate(streams)}
        return sorted(names, key=lambda name: places.get(self.output_of(name), len(streams)))

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Masks of the exchanged channels after the last epoch, boolean (S, C), by layer."""
        path = self.work_dir / 'exchange_masks.npz'
        if not path.is_file():
            return {}
        try:
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        except Exception as error:  # a reader of archives may raise anything
            raise ValueError(f'{path} is damaged ({error}): remove it') from error

    @cached_property
    def classes(self) -> dict[str, dict[str, list[float]]]:
        """IoU and accuracy in % in the last validation, by stream (or ``ensemble``) and class."""
        found: dict[str, dict[str, list[float]]] = {}
        for path in sorted(self.work_dir.glob('*/*.log')):
            tables: dict[str, dict[str, list[float]]] = {}
            stream, rows = 'ensemble', None
            for line in path.read_text(errors='replace').splitlines():
                if (match := re.search(r"stream '(.+)':$", line)) is not None:
                    stream = match[1]
                elif line.endswith('per class results:'):
                    rows = tables[stream] = {}
                    stream = 'ensemble'  # unless the next line names a stream
                elif rows is not None and re.fullmatch(r'\|(?! +Class ).+\|', line):
                    name, *values = (part.strip() for part in line.strip('|').split('|'))
                    rows[name] = [float(value) for value in values]
                elif (match := re.search(r' (?:Epoch|Iter)\((val|test)\) ', line)) is not None:
                    # Only finished validations count: a killed one has no such line after its
                    # tables, and a test is not a validation.
                    if tables and match[1] == 'val':
                        found = tables
                    tables, rows = {}, None
        return found

    @property
    def config(self) -> Path | None:
        """Path of the config of the run."""
        return next(iter(sorted(self.work_dir.glob('*.py'))), None)

    @property
    def sheets(self) -> list[Path]:
        """Paths of the drawn sheets, oldest first."""
        return sorted(self.work_dir.glob('**/sheets/*.png'), key=lambda path: path.stat().st_mtime)


def _of_exchange(name: str) -> bool:
    return name.startswith(EXCHANGE)


def _series(records: list[dict], step: str, skip: tuple[str, ...]) -> dict[str, Series]:
    """Return values by name, the last one for each step."""
    found: dict[str, dict[float, float]] = {}
    for record in records:
        for name, value in record.items():
            if name not in skip and isinstance(value, (int, float)) and step in record:
                found.setdefault(name, {})[record[step]] = value
    return {
        name: (np.array(sorted(points)), np.array([points[s] for s in sorted(points)]))
        for name, points in found.items()
    }
