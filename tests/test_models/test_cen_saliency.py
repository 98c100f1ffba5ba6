"""The loss of soft labels against sums over pixels; attention; what a saliency model must be."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmcen.models.segmentors.cen_saliency import attention, saliency_loss
from tests.training import ROOT

CONFIG = ROOT / 'configs' / 'cen' / 'saliency_rooms_lwrefinenet_r18.py'


def test_loss_is_cross_entropy_of_shares():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(3, 1, 4, 5)), rng.integers(0, 256, (3, 1, 4, 5))
    labels[2] = 255
    found = saliency_loss(torch.from_numpy(logits), torch.from_numpy(labels)).numpy()
    for one, label, loss in zip(logits, labels, found, strict=True):
        share, p = label / 254, 1 / (1 + np.exp(-one))
        terms = -share * np.log(p) - (1 - share) * np.log(1 - p)
        known = label != 255
        assert loss == pytest.approx(terms[known].mean() if known.any() else 0)


def test_attention_doubts_what_disagrees():
    losses = torch.tensor([0.1, 0.5, 2.0], requires_grad=True)
    weights = attention(losses)
    np.testing.assert_allclose(
        weights, 3 * np.exp([-0.1, -0.5, -2]) / np.exp([-0.1, -0.5, -2]).sum()
    )
    assert not weights.requires_grad


def test_attention_changes_the_training_and_nothing_else():
    model = MODELS.build(Config.fromfile(CONFIG).model).eval()  # without dropout
    rng = np.random.default_rng(0)
    samples = []
    for top in (120, 255):
        labels = torch.from_numpy(rng.integers(0, top, (1, 32, 32)))
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=labels)))
    inputs = torch.randn(2, 6, 32, 32)
    plain = {k: v.item() for k, v in model.loss(inputs, samples).items()}
    model.attentive = True
    attentive = {k: v.item() for k, v in model.loss(inputs, samples).items()}
    names = {'decode.ensemble.loss_bce', 'decode.rgb.loss_bce', 'decode.depth.loss_bce'}
    assert set(plain) == set(attentive) == names
    for name, logits in model(inputs).items():
        logits = torch.nn.functional.interpolate(logits, size=(32, 32), mode='bilinear')
        losses = saliency_loss(logits, torch.stack([s.gt_sem_seg.data for s in samples]))
        assert plain[f'decode.{name}.loss_bce'] == pytest.approx(losses.mean().item())
        weighted = (losses * 2 * torch.softmax(1 - losses, 0)).mean().item()
        assert attentive[f'decode.{name}.loss_bce'] == pytest.approx(weighted)
        assert weighted < losses.mean().item()


@pytest.mark.parametrize(
    'change',
    [
        {'decode_head.out_channels': 2},
        {'auxiliary_head': dict(type='FCNHead', in_channels=64, channels=8, num_classes=2)},
    ],
)
def test_one_channel_of_one_head(change):
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict({f'model.{key}': value for key, value in change.items()})
    with pytest.raises(ValueError, match='saliency is one channel of one head, got'):
        MODELS.build(cfg.model)
