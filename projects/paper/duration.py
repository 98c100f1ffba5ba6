"""Estimate how long trainings will take, before they start."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from .experiments import SEGMENTATION, TRANSLATION
from .store import Folder

# Medians of the runs in docs/results, by data set and kind, on two cores of an AMD EPYC
SECONDS_PER_EPOCH = {
    ('synthetic', SEGMENTATION): 11.0,
    ('synthetic', TRANSLATION): 19.1,
    ('nyuv2', TRANSLATION): 52.6,
    ('nyuv2-efflite0', SEGMENTATION): 185.0,
}


def duration(folders: Sequence[tuple[Folder, tuple[str, str]]], jobs: int) -> str:
    """Return a sentence about the number of trainings and the time of the unfinished ones.

    Args:
        folders: Folders of the trainings, each with its data set and kind.
        jobs: Number of parallel trainings.
    """
    left = [(folder, kind) for folder, kind in folders if folder.state != 'finished']
    counts = f'{len(left)} of {len(folders)} trainings to run'
    if not left:
        return f'{counts}.'
    measured: dict[tuple[str, str], list[float]] = {}
    for folder, kind in folders:
        if result := folder.result:
            seconds = result['seconds'] / folder.cfg.train_cfg.max_epochs
            measured.setdefault(kind, []).append(seconds)
    known = SECONDS_PER_EPOCH | {kind: statistics.median(x) for kind, x in measured.items()}
    if any(kind not in known for _, kind in left):
        return f'{counts}; their time was never measured: see the bar after the first steps.'
    total = sum(known[kind] * folder.cfg.train_cfg.max_epochs for folder, kind in left)
    source = 'as those that are finished' if measured else 'as on two cores of an AMD EPYC'
    return f'{counts}, about {_readable(total / jobs)}, {source}.'


def _readable(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f'{minutes} min' if minutes < 120 else f'{seconds / 3600:.1f} h'
