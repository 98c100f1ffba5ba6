"""Frames for the calibration of int8 files."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS
from rich.progress import track

from ..deploy.int8 import CalibrationFrame
from ..engine.present import known_inputs, leaves, predict_from
from .frames import find_frames
from .inferencer import CENInferencer


def frames_of_folders(
    inferencer: CENInferencer, inputs: Sequence[str], given: Sequence[str], count: int
) -> list[CalibrationFrame]:
    """Load frames of a user's folders, evenly spaced; they have no labels.

    Args:
        inferencer: Loads as the model does.
        inputs: Modalities that the file takes.
        given: ``MODALITY=FOLDER`` of each, or one folder with a folder for each modality, by the
            names that :func:`~mmcen.apis.frames.find_frames` accepts.
        count: Largest number of frames.

    Raises:
        ValueError: If a folder or a modality is missing.
    """
    sources = inferencer.sources_of(inputs)
    place: str | dict[str, str] = given[0]
    if len(given) > 1 or '=' in given[0]:
        place = dict(one.split('=', 1) for one in given if '=' in one)
        if len(place) < len(given):
            raise ValueError(f'--calibrate {" ".join(given)}: give one folder, or MODALITY=FOLDER')
    found = find_frames(place, inferencer.modalities, specs=inferencer.info)
    for name in sources:
        if not any(name in frame.files for frame in found):
            raise ValueError(f"--calibrate has no folder of '{name}', which the file takes")
    found = [frame for frame in found if set(sources) <= set(frame.files)]
    return [_frame(inferencer.load(found[i].read())) for i in _spread(len(found), count)]


def frames_of_training_set(
    cfg: Config, inputs: Sequence[str], count: int
) -> list[CalibrationFrame]:
    """Load frames of a config's training set as the test loads its own, evenly spaced.

    The frames of the test stay unseen.

    Args:
        cfg: Config of the model.
        inputs: Modalities that the file takes.
        count: Largest number of frames.

    Raises:
        ValueError: If the config has no training set.
    """
    cfg = deepcopy(cfg)
    if not (cfg.get('train_dataloader') and cfg.get('test_dataloader')):
        raise ValueError('the config has no training set: give frames by --calibrate FOLDER')
    test = next(leaves(cfg.test_dataloader.dataset))
    dataset = next(leaves(cfg.train_dataloader.dataset))
    dataset.pipeline = test.pipeline
    cfg.test_dataloader.dataset = dataset
    if list(inputs) != known_inputs(cfg):
        predict_from(cfg, inputs)
    built = DATASETS.build(cfg.test_dataloader.dataset)
    places = _spread(len(built), count)
    return [_frame(built[i]) for i in track(places, 'loading', transient=True)]


def _spread(length: int, count: int) -> list[int]:
    """Return at most so many numbers below a length, evenly spaced."""
    count = min(length, count)
    return [i * length // count for i in range(count)]


def _frame(packed: dict[str, Any]) -> CalibrationFrame:
    label = packed['data_samples'].get('gt_sem_seg')
    return CalibrationFrame(packed['inputs'], None if label is None else label.data[0])
