"""RGB-D saliency without labels (Table 14): CEN that learns from pseudo labels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from ...saliency import SURE, VOID
from .cen_encoder_decoder import CENEncoderDecoder


@MODELS.register_module()
class CENSaliency(CENEncoderDecoder):
    """The streams of :class:`CENEncoderDecoder`, each with one logit a pixel: how salient it is.

    Labels are soft, 0..254 for 0..1 in ``gt_sem_seg``, and 255 for void. The loss is binary cross
    entropy, of every stream and of the ensemble, in place of the head's own. A prediction's
    ``seg_logits`` hold the probability, as mmseg has it for one channel.

    Attentive training of reference [82] (Ji et al., ICLR 2022; ``loss_weight`` of
    ``attentive_training.py`` of its official code) weighs the samples of a batch: those that the
    network disagrees with are doubted. :class:`PseudoLabelHook` turns it on and off.

    The saliency network of [82] sees colour alone, and a second one depth; here they are the two
    streams of one network, with any backbone and head of mmseg in the place of CPD.

    Args:
        decode_head: config of a head of mmseg, with ``num_classes=2, out_channels=1,
            threshold=0.5``.
        kwargs: of :class:`CENEncoderDecoder`; no auxiliary heads.

    Raises:
        ValueError: a head of another number of channels, or an auxiliary head.
    """

    def __init__(self, decode_head: dict, **kwargs: Any) -> None:
        channels = decode_head.get('out_channels', decode_head.get('num_classes'))
        if channels != 1 or kwargs.get('auxiliary_head'):
            raise ValueError(
                f'saliency is one channel of one head, got {channels} and auxiliary_head='
                f'{kwargs.get("auxiliary_head")}: give decode_head=dict(num_classes=2, '
                'out_channels=1, threshold=0.5, ...) alone'
            )
        super().__init__(decode_head=decode_head, **kwargs)
        self.attentive = False

    def _decode_head_forward_train(
        self, inputs: list[Tensor], data_samples: list[SegDataSample]
    ) -> dict[str, Tensor]:
        labels = torch.stack([sample.gt_sem_seg.data for sample in data_samples])  # (B, 1, H, W)
        losses = {}
        for name, logits in self._outputs(self.decode_head(inputs)).items():
            logits = F.interpolate(logits, size=labels.shape[2:], mode='bilinear')
            by_sample = saliency_loss(logits, labels)
            if self.attentive:
                by_sample = by_sample * attention(by_sample)
            losses[f'decode.{name}.loss_bce'] = by_sample.mean()
        return losses


def saliency_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross entropy by sample.

    Args:
        logits: (B, 1, H, W).
        labels: (B, 1, H, W) integers, 0..254 for 0..1, 255 for void.

    Returns:
        (B,), the mean over pixels that are not void; 0 where all are.
    """
    known = (labels != VOID).to(logits.dtype)
    target = (labels.to(logits.dtype) / SURE).clamp(max=1)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction='none') * known
    return loss.sum((1, 2, 3)) / known.sum((1, 2, 3)).clamp(min=1)


def attention(losses: Tensor) -> Tensor:
    """Weights of the samples of a batch by their losses: ``B * softmax(1 - loss)``, detached.

    [82] leaves the factor B out, so that the loss of its second steps is B times smaller; with it
    the mean weight is 1 and the two steps are of one scale.

    Args:
        losses: (B,).

    Examples:
        >>> attention(torch.tensor([0.5, 0.5]))
        tensor([1., 1.])
    """
    return len(losses) * torch.softmax(1 - losses.detach(), 0)
