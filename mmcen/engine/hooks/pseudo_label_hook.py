"""Train in rounds on pseudo labels, and improve the labels (the paper's reference [82])."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.dataset import pseudo_collate
from mmengine.dist import barrier, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ...datasets import LoadPseudoLabel
from ...datasets.transforms.saliency import label_file
from ...files import whole_file
from ...saliency import refine_saliency


@HOOKS.register_module()
class PseudoLabelHook(Hook):
    """Update pseudo labels from the network's own predictions, refined by depth.

    A round takes two intervals of epochs (3 and 3 in [82]): the first weights all samples equally,
    the second uses attentive weights. At its end every frame's label becomes the refined prediction
    of the ensemble, see :func:`~mmcen.saliency.refine_saliency`. The ensemble replaces the saliency
    network of [82]. Labels are written to ``<work_dir>/pseudo_labels/round_<n>/``, where a resumed
    training finds them. There is no update after the last epoch. Several processes share the
    frames, and must share the folder.

    Args:
        pipeline: Pipeline that loads a frame for prediction, without augmentation, with
            RelativeDepth and up to PackModalities.
        interval: Number of epochs of each half of a round.
        refine: Arguments of ``refine_saliency``.

    Raises:
        ValueError: If the interval is less than one epoch. Later, if no transform loads pseudo
            labels, a resumed training does not find them, or workers are persistent.
    """

    def __init__(
        self, pipeline: Sequence[dict], interval: int = 3, refine: dict | None = None
    ) -> None:
        if interval < 1:
            raise ValueError(f'interval must be 1 epoch or more, got {interval}')
        self.pipeline = pipeline
        self.interval = interval
        self.refine = refine or {}

    def before_train(self, runner: Runner) -> None:
        rounds = runner.epoch // (2 * self.interval)
        folder = _folder(runner, rounds)
        if rounds and not folder.is_dir():
            raise ValueError(
                f'training resumes at epoch {runner.epoch}, but its pseudo labels are not in '
                f'{folder}: resume in the work_dir of that training'
            )
        loaders = list(_loaders(runner))
        if not loaders:
            raise ValueError(
                'PseudoLabelHook: no transform of the training loads pseudo labels: put '
                'LoadPseudoLabel into its pipeline, or leave the hook out'
            )
        if runner.train_dataloader.num_workers and runner.train_dataloader.persistent_workers:
            raise ValueError(
                'PseudoLabelHook: workers with persistent_workers=True would go on with the first '
                'labels: set persistent_workers=False in train_dataloader'
            )
        for loader in loaders:
            loader.updated = str(folder) if rounds else None

    def before_train_epoch(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model.attentive = runner.epoch % (2 * self.interval) >= self.interval

    def after_train_epoch(self, runner: Runner) -> None:
        # before the checkpoint is written, so that labels are there when it is
        rounds, rest = divmod(runner.epoch + 1, 2 * self.interval)
        if rest or runner.epoch + 1 >= runner.max_epochs:
            return
        folder = _folder(runner, rounds)
        change = self._update(runner, folder)
        barrier()
        for loader in _loaders(runner):
            loader.updated = str(folder)
        print_log(f'pseudo labels of round {rounds}: {folder}, changed by {change:.3f}', 'current')

    def _update(self, runner: Runner, folder: Path) -> float:
        """Write all labels, and return their mean absolute difference from the prediction."""
        runner.model.eval()
        changes = []
        for dataset in _parts(runner):
            frames = copy.copy(dataset)
            frames.pipeline = Compose(list(self.pipeline))
            for index in range(get_rank(), len(frames), get_world_size()):
                packed = frames[index]
                changes.append(self._write(runner, packed, folder))
        runner.model.train()
        return float(np.mean(changes)) if changes else 0.0

    def _write(self, runner: Runner, packed: dict, folder: Path) -> float:
        rgb, near = (
            packed['inputs'][name].permute(1, 2, 0).float().numpy() for name in ('rgb', 'depth')
        )
        path = label_file(str(folder), packed['data_samples'].img_path)
        with torch.no_grad():
            (sample,) = runner.model.test_step(pseudo_collate([packed]))
        predicted = sample.seg_logits.data[0].float().cpu().numpy()
        if predicted.shape != near.shape[:2]:
            predicted = cv2.resize(predicted, (near.shape[1], near.shape[0]))
        label = refine_saliency(predicted, near[..., 0], rgb, **self.refine)
        with whole_file(path) as part:
            image = np.rint(label * 255).astype(np.uint8)
            part.write_bytes(cv2.imencode('.png', image)[1].tobytes())
        return float(np.abs(label - predicted).mean())


def _folder(runner: Runner, rounds: int) -> Path:
    return Path(runner.work_dir, 'pseudo_labels', f'round_{rounds}')


def _parts(runner: Runner) -> list[Any]:
    """Return the training data sets; a ConcatDataset has several."""
    dataset = runner.train_dataloader.dataset
    return list(getattr(dataset, 'datasets', [dataset]))


def _loaders(runner: Runner) -> Iterator[LoadPseudoLabel]:
    for dataset in _parts(runner):
        for transform in dataset.pipeline.transforms:
            if isinstance(transform, LoadPseudoLabel):
                yield transform
