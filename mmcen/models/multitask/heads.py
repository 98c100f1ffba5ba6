"""Heads of tasks: activation, loss and prediction."""

from typing import Any

import torch
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement, PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ..label_map import label_map
from ..losses import loss_of_classes


@MODELS.register_module()
class ImageHead(nn.Module):
    """Head of a task whose target is an image, or a class map in the colours of its palette.

    Args:
        loss: Config of the pixel loss on values in -1..1, such as mmagic's L1Loss or
            ``torch.nn.L1Loss``.
        channels: Channels C' of the target.

    Targets are domains of the batch, ``(B, C', H, W)`` in -1..1. Predictions are in 0..255.
    """

    of_images = True  # the target is a domain of the batch, and a discriminator may judge it

    def __init__(self, loss: dict | None = None, channels: int = 3) -> None:
        super().__init__()
        self.channels = channels
        self.criterion = MODELS.build(loss or dict(type='torch.nn.L1Loss'))

    def activate(self, x: Tensor) -> Tensor:
        """Convert a network output to an image in -1..1."""
        return torch.tanh(x)

    def target(self, task: str, domains: dict[str, Tensor], samples: Any) -> Tensor:
        """Return the domain with the name of the task."""
        if task not in domains:
            raise ValueError(
                f"target '{task}' is missing, the batch has {list(domains)}: add it to the "
                "dataset's modalities"
            )
        return domains[task]

    def loss(self, x: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the pixel loss."""
        if x.shape != target.shape:
            raise ValueError(
                f'output {tuple(x.shape)} and target {tuple(target.shape)} differ in shape: '
                'encode the target by EncodeDomains, or set channels of the head'
            )
        return {'loss_pixel': self.criterion(x, target)}

    def predict(self, x: Tensor) -> BaseDataElement:
        """Convert one image ``(C', H, W)`` in -1..1 to ``pred`` in 0..255."""
        return BaseDataElement(pred=to_image(x))


@MODELS.register_module()
class ClassHead(nn.Module):
    """Head of a task whose targets are semantic classes, with a loss of mmseg on logits.

    Args:
        num_classes: Number of classes K.
        loss: Config of the loss, with ``ignore_index`` as an argument of its forward.
        ignore_index: Label without loss.

    Targets are ``gt_sem_seg`` of the samples; predictions are ``pred_sem_seg``.
    """

    of_images = False

    def __init__(self, num_classes: int, loss: dict | None = None, ignore_index: int = 255) -> None:
        super().__init__()
        self.channels = num_classes
        self.ignore_index = ignore_index
        loss = loss or dict(type='mmseg.CrossEntropyLoss', avg_non_ignore=True)
        self.criterion = MODELS.build(loss)

    def activate(self, x: Tensor) -> Tensor:
        """Return the logits unchanged."""
        return x

    def target(self, task: str, domains: Any, samples: list[SegDataSample] | None) -> Tensor:
        """Return labels ``(B, H, W)``."""
        if not samples or not all('gt_sem_seg' in sample for sample in samples):
            raise ValueError(
                f"task '{task}' has no labels: a ClassHead needs gt_seg_map, from LoadLabel or a "
                'dataset with segment_semantic'
            )
        return torch.cat([sample.gt_sem_seg.data for sample in samples])

    def loss(self, x: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the loss of the classes."""
        return {'loss_ce': loss_of_classes(self.criterion, x, target, self.ignore_index)}

    def predict(self, x: Tensor) -> BaseDataElement:
        """Convert logits ``(K, H, W)`` of one sample to ``pred_sem_seg``."""
        height, width = x.shape[1:]
        labels = label_map(x, (height, width))
        return BaseDataElement(pred_sem_seg=PixelData(data=labels[None]))


def to_image(x: Tensor) -> Tensor:
    """Scale -1..1 to 0..255, as EncodeDomains writes images."""
    return (x.float() + 1) * 127.5
