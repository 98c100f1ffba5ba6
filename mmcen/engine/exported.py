"""Test a file of ``mmcen export`` as the model of a runner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor

from ..deploy import OnnxNetwork, padded
from ..models.checkpoint_names import KEY, reject_other_classes
from ..models.label_map import label_map, resize_labels
from ..outputs import ENSEMBLE, SEGMENTATION, outputs_of
from .present import known_inputs, predict_from


@MODELS.register_module()
class ExportedModel(BaseModel):
    """An ONNX file that predicts samples, as the model does that it was exported from.

    Args:
        path: File of ``mmcen export``.
        align_corners: How logits are resized to the size of the frame, see ``F.interpolate``.
        threads: Threads of ONNX Runtime; 0 for all cores.

    Raises:
        ValueError: If the file cannot be used, see :class:`~mmcen.deploy.OnnxNetwork`.
    """

    def __init__(self, path: str, align_corners: bool = False, threads: int = 0) -> None:
        super().__init__()
        self.network = OnnxNetwork(path, threads)
        self.first = next(iter(self.network.inputs))
        self.align_corners = align_corners

    def to(self, *args: Any, **kwargs: Any) -> ExportedModel:
        """Stay on the CPU, as ONNX Runtime does: the runner moves batches where the model is."""
        return self

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'predict') -> Any:
        """Predict samples, as in mmengine.

        Args:
            inputs: Frames by modality: a list of B tensors ``(C_m, H, W)`` or one ``(B, C_m, H,
                W)``; or a list of B mappings from name to ``(C_m, H, W)``.
            data_samples: B samples, which get the predictions.
            mode: ``'predict'`` alone.

        Raises:
            ValueError: If a modality of the file is missing, or the mode is another.
        """
        if mode != 'predict':
            raise ValueError(f"an exported file has no mode '{mode}': train and test a checkpoint")
        if isinstance(inputs, Mapping):
            inputs = [
                dict(zip(inputs, frame, strict=True))
                for frame in zip(*inputs.values(), strict=True)
            ]
        for frame, sample in zip(inputs, data_samples, strict=True):
            self._predict(frame, sample)
        return data_samples

    @torch.no_grad()
    def _predict(self, frame: Mapping[str, Tensor], sample: Any) -> None:
        missing = [name for name in self.network.inputs if name not in frame]
        if missing:
            raise ValueError(
                f"modality '{missing[0]}' is missing, without which this file does not predict: "
                'export another one by mmcen export --present'
            )
        found = padded(self.network, [frame[name][None].float() for name in self.network.inputs])
        tasks: dict[str, dict[str, BaseDataElement]] = {}
        for name, y in found.items():
            task, _, stream = name.rpartition('/')
            size = frame[self.first].shape[1:] if task else sample.ori_shape[:2]
            own = tasks.setdefault(task or SEGMENTATION, {})
            own[stream] = self._output(name, y[0], (size[0], size[1]))
        targets = {task: frame[task].float() for task in tasks if task in frame}
        sample.set_data({'outputs': outputs_of(tasks), 'targets': BaseDataElement(**targets)})
        for field, value in tasks.get(SEGMENTATION, {}).get(ENSEMBLE, BaseDataElement()).items():
            sample.set_data({field: value})

    def _output(self, name: str, y: Tensor, size: tuple[int, int]) -> BaseDataElement:
        """Fields of one output, ``(K, h, w)`` or ``(h, w)``."""
        if name in self.network.labels:
            return _labels(resize_labels(y, size).long())
        if name not in self.network.images and len(y) > 1:
            return _labels(label_map(y, size, self.align_corners))
        if '/' in name:  # of several tasks
            return BaseDataElement(pred=y)
        grey = y[:1] / 255 if name in self.network.images else y.sigmoid()
        resized = F.interpolate(
            grey[None], size, mode='bilinear', align_corners=self.align_corners
        )[0]
        labels = _labels((resized[0] > self.network.facts.get('threshold', 0.5)).long())
        labels.set_data({'seg_logits': PixelData(data=resized)})
        return labels


def _labels(labels: Tensor) -> BaseDataElement:
    return BaseDataElement(pred_sem_seg=PixelData(data=labels[None]))


def predict_by(cfg: Config, path: str) -> None:
    """Let a config test an exported file in place of its model.

    Args:
        cfg: Changed in place.
        path: File of ``mmcen export``.

    Raises:
        ValueError: If the file cannot be used, takes other modalities, or has no ensemble.
    """
    network = OnnxNetwork(path, threads=1)
    known = known_inputs(cfg)
    if not set(network.inputs) <= set(known):
        raise ValueError(
            f'{path} takes {list(network.inputs)}, the model of the config {known}: give the '
            'config that it was exported with'
        )
    if not any(name.split('/')[-1] == ENSEMBLE for name in network.outputs):
        raise ValueError(
            f'{path} has the outputs {list(network.outputs)} and no ensemble, which the test '
            'measures: export it without --outputs'
        )
    if len(network.inputs) < len(known):
        predict_from(cfg, list(network.inputs))
    head = cfg.model.get('decode_head')
    aligned = bool(head.get('align_corners')) if isinstance(head, Mapping) else False
    cfg.model = dict(type='ExportedModel', path=path, align_corners=aligned)
    cfg.custom_hooks = []  # those of a training
    cfg.load_from = None


def check_classes(runner: Runner) -> None:
    """Raise CheckpointError if the test set has other classes than the file."""
    model: Any = runner.model
    meta = {'dataset_meta': {'classes': model.network.facts.get('classes')}}
    own = getattr(runner.test_loop.dataloader.dataset, 'metainfo', None) or {}
    reject_other_classes({'state_dict': {KEY: None}, 'meta': meta}, own.get('classes'))
