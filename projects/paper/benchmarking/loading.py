"""What loading costs: a config's training pipeline, and the official code's way on the same frames.

All on one thread, as in a worker process: samples per second and core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import Tensor
from torch.utils.data import default_collate

from mmcen.datasets import DepthToHHA, MultiModalSegDataset, RandomScaleCrop
from mmcen.datasets.transforms.for_each import transform_parts

from . import measure
from .official_data import OfficialData
from .workload import OURS, SEED

CACHED, OFFICIAL = 'cached', 'official'
NEEDS = {
    CACHED: 'is for a data set of files',
    OFFICIAL: 'is for colour and depth as they are, labels, and a square RandomScaleCrop',
}
# what worker processes do; and all until the network can begin, normalised on the CPU
TASKS = ('sample', 'input')


@dataclass
class LoadingWorkload:
    """Everything that decides what is loaded.

    Args:
        cfg: The config, with ``train_dataloader``.
        batch: B, frames per run.
        frames: How many different frames are loaded, at most.
    """

    cfg: Config
    batch: int
    frames: int
    device = 'cpu'
    rivals = (CACHED, OFFICIAL)

    def __post_init__(self) -> None:
        init_default_scope(self.cfg.get('default_scope', 'mmseg'))
        cv2.setNumThreads(0)
        torch.set_num_threads(1)

    def suitable(self) -> list[str]:
        """The rivals that this config can be measured against."""
        dataset = self.dataset()
        names = [CACHED] if isinstance(dataset, MultiModalSegDataset) else []
        return [*names, OFFICIAL] if names and official_like(dataset) else names

    def dataset(self, **options: Any) -> Any:
        """The training set with its pipeline.

        Raises:
            FileNotFoundError: If it does not exist.
        """
        return DATASETS.build({**deepcopy(self.cfg.train_dataloader.dataset), **options})

    @property
    def tasks(self) -> tuple[str, ...]:
        """What is measured: without a model, nothing makes samples the network's input."""
        return TASKS if self.cfg.get('model') else TASKS[:1]

    def preprocessor(self) -> Any:
        """The model's data preprocessor; None where the config has no model."""
        model = self.cfg.get('model') or {}
        return MODELS.build(deepcopy(model.data_preprocessor)) if model else None

    def build(self, name: str) -> LoadingVariant:
        """'ours', or one of the rivals."""
        if name == OFFICIAL:
            return OfficialVariant(self)
        return LoadingVariant(self, cache='memory') if name == CACHED else LoadingVariant(self)

    def order(self, length: int) -> np.ndarray:
        """Frames in the order in which all variants load them, again from the start at the end."""
        return np.random.default_rng(SEED).permutation(length)[: self.frames]


def plan(
    cfg: Config, batch: int | None, runs: int, compare: Sequence[str] | None
) -> tuple[LoadingWorkload, list[str]]:
    """The work, and the names of the variants to measure.

    Args:
        cfg: The config.
        batch: Frames per run; None takes the config's.
        runs: That many different ones.
        compare: Rivals; None takes those that suit.

    Raises:
        ValueError: If the config has no training data, or a rival is unknown or does not fit.
        FileNotFoundError: If the data set does not exist.
    """
    if 'train_dataloader' not in cfg:
        raise ValueError('the config has no train_dataloader: give one that trains')
    batch = batch or cfg.train_dataloader.get('batch_size') or 1
    work = LoadingWorkload(cfg, batch, runs * batch)
    suitable = work.suitable()
    for name in compare or ():
        if name not in work.rivals:
            raise ValueError(f'--compare: {name} is none of {", ".join(work.rivals)}')
        if name not in suitable:
            raise ValueError(f'--compare: {name} {NEEDS[name]}: leave it out')
    names = suitable if compare is None else [name for name in work.rivals if name in compare]
    return work, [OURS, *names]


class LoadingVariant:
    """The config's own way, perhaps with a cache; the same frames and seeds in every variant."""

    def __init__(self, work: LoadingWorkload, **options: Any) -> None:
        self.work = work
        self.dataset = work.dataset(**options)
        self.preprocess = work.preprocessor()
        self.order = work.order(len(self.dataset))
        self.begun = 0  # frames loaded so far in this task

    def prepare(self, task: str) -> None:
        """Begin with the first frame; a cache has been filled in an epoch before."""
        self.begun = 0
        if any(getattr(one, 'cache', None) is not None for one in parts_of(self.dataset)):
            for index in self.order:
                self.dataset[int(index)]

    def run(self, task: str) -> Tensor:
        """Load a batch: a tensor of the last sample, or the network's input."""
        samples = []
        for _ in range(self.work.batch):
            np.random.seed(SEED + self.begun)
            samples.append(self.load(int(self.order[self.begun % len(self.order)])))
            self.begun += 1
        return self.to_input(samples) if task == 'input' else self.tensor(samples[-1])

    def load(self, index: int) -> dict:
        return self.dataset[index]

    def tensor(self, sample: dict) -> Tensor:
        return next(iter(sample['inputs'].values()))

    def to_input(self, samples: Sequence[dict]) -> Tensor:
        inputs = self.preprocess(pseudo_collate(samples), training=True)['inputs']
        return inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()))


class OfficialVariant(LoadingVariant):
    """The official code's way with the config's scale and crop."""

    def __init__(self, work: LoadingWorkload) -> None:
        super().__init__(work)
        like = official_like(self.dataset)
        assert like is not None  # it is suitable
        self.names, self.load_files = like

    def load(self, index: int) -> dict:
        info = self.dataset.get_data_info(index)
        frame = {kind: info['modality_paths'][name] for kind, name in self.names.items()}
        return self.load_files({**frame, 'mask': info['seg_map_path']})

    def tensor(self, sample: dict) -> Tensor:
        return sample['rgb']

    def to_input(self, samples: Sequence[dict]) -> Tensor:
        return default_collate(samples)['rgb']


def official_like(dataset: Any) -> tuple[dict[str, str], OfficialData] | None:
    """Names of colour and depth, and the official transforms of the same scale and crop; None if
    the data set is of another kind."""
    by_kind = {spec.kind: name for name, spec in dataset.modality_info.items()}
    steps = [one for one in steps_of(dataset) if isinstance(one, (RandomScaleCrop, DepthToHHA))]
    if (
        len(dataset.modality_info) != 2
        or by_kind.keys() != {'colour', 'depth'}
        or 'seg_map_path' not in dataset.data_prefix
        or [type(step) for step in steps] != [RandomScaleCrop]
        or len(set(steps[0].crop_size)) != 1
        or steps[0].cat_max_ratio < 1
    ):
        return None
    data = OfficialData(
        dataset.modality_info[by_kind['depth']],
        crop=steps[0].crop_size[0],
        side=steps[0].min_side,
        scales=steps[0].ratio_range,
        zero_is_void=dataset.reduce_zero_label,
    )
    return {'rgb': by_kind['colour'], 'depth': by_kind['depth']}, data


def steps_of(dataset: Any) -> list[Any]:
    """All transforms of a data set, and those inside them."""
    steps = [step for one in parts_of(dataset) for step in one.pipeline.transforms]
    return [part for step in steps for part in transform_parts(step)]


def parts_of(dataset: Any) -> list[Any]:
    """The data sets that a ConcatDataset is made of, or the one that it is."""
    return getattr(dataset, 'datasets', [dataset])


def figures(rows: dict[str, list[float]], batch: int) -> dict[str, dict]:
    """By variant, from seconds per run: seconds and samples, and how many times as fast it is as
    the official way, if that is there, or ours."""
    base = rows[OFFICIAL if OFFICIAL in rows else OURS]
    return {
        name: {
            **measure.summary([taken / batch for taken in seconds]),
            'samples_per_second': batch / float(np.median(seconds)),
            'speedup': measure.ratios(base, seconds),
        }
        for name, seconds in rows.items()
    }


def where_time_goes(
    variant: LoadingVariant, runs: int, seconds: Callable[[], float], advance: Callable[[], None]
) -> dict[str, float]:
    """Seconds per sample by transform, without what the transforms inside it take.

    Args:
        variant: Not to be measured afterwards, its transforms are watched from now on.
        runs: Batches to load.
        seconds: A stopwatch.
        advance: Called after each batch.
    """
    watch = Watch(seconds)
    task = variant.work.tasks[-1]
    variant.prepare(task)
    for step in steps_of(variant.dataset):
        watch.over(step)
    start = seconds()
    for _ in range(runs):
        variant.run(task)
        advance()
    rest = seconds() - start - sum(watch.spent.values())
    spent = {**watch.spent, 'batch, data preprocessor' if task == 'input' else 'other': rest}
    return {name: taken / (runs * variant.work.batch) for name, taken in spent.items()}


class Watch:
    """Seconds of transforms by the name of their class, in ``spent``, in the order of their end."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.seconds = seconds
        self.spent: dict[str, float] = {}
        self._inside: list[float] = []  # of each transform at work, what those within it took

    def over(self, step: Any) -> None:
        """Watch a transform from now on, by a subclass: ForEachModality tidies the object."""
        kind, watch = type(step), self

        def transform(self: Any, results: dict) -> dict | None:
            watch._inside.append(0.0)
            start = watch.seconds()
            moved = kind.transform(self, results)
            taken = watch.seconds() - start
            own = taken - watch._inside.pop()
            watch.spent[kind.__name__] = watch.spent.get(kind.__name__, 0.0) + own
            if watch._inside:
                watch._inside[-1] += taken
            return moved

        step.__class__ = type(kind.__name__, (kind,), {'transform': transform})
