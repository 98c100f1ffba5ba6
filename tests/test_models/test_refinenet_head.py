"""RefineNetHead: against the official decoder, published counts, and a Light-Weight RefineNet."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmcen.converters.official_segmenter import HEAD_MODULES
from mmcen.models.backbones import CENResNet
from mmcen.models.decode_heads import RefineNetHead
from tests.official import OfficialSegmenter
from tests.streams import resnet

WIDTH = 4
CHANNELS = [WIDTH * 4 * 2**i for i in range(4)]
CLASSES = 5


def make_pair(streams=1):
    """Our head and the official segmenter with the same random decoder."""
    official = OfficialSegmenter([1, 1, 1, 1], streams, CLASSES, width=WIDTH)
    head = RefineNetHead(CHANNELS, num_classes=CLASSES)
    theirs = official.state_dict()
    head.load_state_dict(
        {
            name: theirs[f'{HEAD_MODULES[module]}.module.{leaf}']
            for name in head.state_dict()
            for module, leaf in [name.rsplit('.', 1)]
        }
    )
    return head, official


def make_features(batch, height, width, channels=CHANNELS):
    """Random features whose sizes halve, rounded up as a ResNet does."""
    sizes = [(-(-height // 2**i), -(-width // 2**i)) for i in range(4)]
    return [torch.randn(batch, c, *s) for c, s in zip(channels, sizes, strict=True)]


@settings(max_examples=8, deadline=None)
@given(height=st.integers(8, 19), width=st.integers(8, 19), streams=st.integers(1, 3))
def test_folded_streams_equal_official_decoder(height, width, streams):
    torch.manual_seed(height * width)
    head, official = make_pair(streams)
    head.eval()
    official.eval()
    features = make_features(2 * streams, height, width)
    expected = official.decode(*([*f.unflatten(0, (2, streams)).unbind(1)] for f in features))
    expected = torch.stack(expected, 1).flatten(0, 1)  # (B*M, K, H, W)
    torch.testing.assert_close(head(features), expected, rtol=1e-5, atol=1e-6)


def test_gradients_equal_official_decoder():
    torch.manual_seed(0)
    head, official = make_pair()
    head.eval()
    official.eval()
    features = [f.requires_grad_() for f in make_features(2, 12, 9)]
    head(features).square().sum().backward()
    ours = [f.grad for f in features]
    copies = [f.detach().clone().requires_grad_() for f in features]
    official.decode(*([c] for c in copies))[0].square().sum().backward()
    for own, copy in zip(ours, copies, strict=True):
        torch.testing.assert_close(own, copy.grad, rtol=1e-4, atol=1e-6)
    names = dict(official.named_parameters())
    for name, parameter in head.named_parameters():
        module, leaf = name.rsplit('.', 1)
        theirs = names[f'{HEAD_MODULES[module]}.module.{leaf}'].grad
        torch.testing.assert_close(parameter.grad, theirs, rtol=1e-4, atol=1e-5)


def test_dropout_is_where_and_what_the_official_one_is():
    torch.manual_seed(0)
    head, official = make_pair()
    features = make_features(2, 12, 9)
    head.train()
    official.train()
    torch.manual_seed(1)
    ours = head(features)
    torch.manual_seed(1)
    torch.testing.assert_close(ours, official.decode(*([f] for f in features))[0])
    assert not torch.allclose(ours, head(features))


@pytest.mark.parametrize('light_weight', [False, True])
def test_features_of_the_caller_stay_as_they_are(light_weight):
    head = RefineNetHead(CHANNELS, num_classes=CLASSES, light_weight=light_weight).train()
    features = make_features(1, 8, 8)
    copies = [f.clone() for f in features]
    head(features)
    for feature, copy in zip(features, copies, strict=True):
        assert torch.equal(feature, copy)


def light_weight_refinenet(state, features):
    """Light-Weight RefineNet as its paper draws it: 1x1 convs, fusion, chained pooling."""
    result = None
    for i in (3, 2, 1, 0):
        x = F.conv2d(features[i], state[f'stages.{i}.reduce.weight'])
        if result is not None:
            x = F.conv2d(x, state[f'stages.{i}.fuse.weight'])
            x = x + F.interpolate(result, x.shape[2:], mode='bilinear', align_corners=True)
        link = x = x.clamp(min=0)
        for j in range(4):
            link = F.max_pool2d(link, 5, 1, 2)
            link = F.conv2d(link, state[f'stages.{i}.pool.convs.{j}.weight'])
            x = x + link
        result = F.conv2d(x, state[f'stages.{i}.project.weight']) if i else x
    return F.conv2d(result, state['conv_seg.weight'], state['conv_seg.bias'], padding=1)


def test_light_weight_equals_its_paper():
    torch.manual_seed(0)
    head = RefineNetHead(CHANNELS, num_classes=CLASSES, light_weight=True)
    head.eval()
    features = make_features(2, 13, 10)
    expected = light_weight_refinenet(head.state_dict(), features)
    torch.testing.assert_close(head(features), expected)


@pytest.mark.parametrize(('depth', 'millions'), [(50, 27), (101, 46), (152, 62)])
def test_light_weight_parameter_count_is_the_published_one(depth, millions):
    with torch.device('meta'):
        model = nn.ModuleList([CENResNet(depth), RefineNetHead(num_classes=40, light_weight=True)])
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == millions


def test_cost_at_480x640_is_the_published_one():
    """Two streams of R101: 618.7 GFLOPs (multiply-adds, elementwise ones too), decoder 523."""
    with torch.device('meta'):
        backbone = resnet(101)
        head = RefineNetHead(num_classes=40)
        images = torch.rand(2, 3, 480, 640)
    with FlopCounterMode(display=False) as encoder:
        features = backbone(images)
    with FlopCounterMode(display=False) as decoder:
        head(features)
    convs = [counter.get_total_flops() / 2e9 for counter in (encoder, decoder)]
    assert convs == pytest.approx([96, 523], rel=0.01)
    assert sum(convs) == pytest.approx(618.7, rel=0.01)


@pytest.mark.parametrize('light_weight', [False, True])
def test_width_follows_the_encoder(light_weight):
    channels = [64, 128, 256, 512]
    head = RefineNetHead(channels, num_classes=CLASSES, light_weight=light_weight)
    assert head.channels == 64
    assert head.stages[3].reduce.out_channels == 128
    assert head(make_features(2, 8, 8, channels)).shape == (2, CLASSES, 8, 8)
    assert RefineNetHead(channels, 16, num_classes=CLASSES).conv_seg.in_channels == 16


def test_losses_and_prediction_through_mmseg():
    torch.manual_seed(0)
    head = MODELS.build(
        dict(type='RefineNetHead', in_channels=CHANNELS, num_classes=CLASSES, dropout_ratio=0)
    )
    head.init_weights()
    features = make_features(1, 8, 8)
    label = torch.randint(CLASSES, (1, 32, 32))
    sample = SegDataSample(gt_sem_seg=PixelData(data=label))
    losses = head.loss(features, [sample], None)
    logits = head.predict(features, [dict(img_shape=(32, 32))], None)
    expected = F.interpolate(head(features), (32, 32), mode='bilinear', align_corners=False)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(losses['loss_ce'], F.cross_entropy(expected, label))


@pytest.mark.parametrize('name', ['norm_cfg', 'conv_cfg', 'act_cfg'])
def test_settings_without_effect_are_refused(name):
    with pytest.raises(ValueError, match=f"plain convs and ReLUs, got {name}={{'type': 'X'}}"):
        RefineNetHead(num_classes=CLASSES, **{name: dict(type='X')})


def test_one_feature_is_refused():
    with pytest.raises(ValueError, match=r'two features or more, got in_channels=\[8\]'):
        RefineNetHead([8], in_index=[0], num_classes=CLASSES)
