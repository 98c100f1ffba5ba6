"""CENResNet: where it exchanges, how it starts, what it loads, how many parameters it has."""

import pytest
import torch
import torchvision
from mmengine.registry import MODELS
from mmseg.models.backbones.resnet import BasicBlock
from torch import nn

from mmcen.core import exchange_norms
from mmcen.models.backbones import CENResNet
from mmcen.models.decode_heads import RefineNetHead
from tests.oracle import exchange
from tests.streams import multi_stream, resnet


def exchanging(model):
    return [name for name, _ in exchange_norms(model)]


@pytest.mark.parametrize(
    ('depth', 'norms'), [(18, 'bn1 bn2'), (34, 'bn1 bn2'), (50, 'bn2'), (101, 'bn2')]
)
def test_exchange_follows_3x3_convs_of_blocks(depth, norms):
    with torch.device('meta'):
        model = resnet(depth)
    expected = [
        f'layer{i + 1}.{b}.{norm}'
        for i, blocks in enumerate(model.stage_blocks)
        for b in range(blocks)
        for norm in norms.split()
    ]
    assert exchanging(model) == expected


@pytest.mark.parametrize('depth', [18, 50])
def test_exchange_can_be_off(depth):
    with torch.device('meta'):
        assert not exchanging(resnet(depth, exchange=dict(after=None)))
        by_norm = dict(norm_cfg=dict(type='CENBN', exchange=False))
        assert not exchanging(resnet(depth, **by_norm))
        assert not exchanging(resnet(depth, streams=1))


@pytest.mark.parametrize('depth', [18, 50])
def test_the_stages_that_exchange_can_be_told(depth):
    deep = dict(selection='fixed', inside=['layer3', 'layer4'])
    model = resnet(depth, base_channels=4, exchange=deep)
    model.eval()  # mmseg's returns nothing
    assert {name.partition('.')[0] for name in exchanging(model)} == {'layer3', 'layer4'}
    rgb, depths, others = torch.randn(3, 1, 3, 64, 64)
    before, after = (model(torch.cat([rgb, x])) for x in (depths, others))
    same = [torch.equal(x[0], y[0]) for x, y in zip(before, after, strict=True)]
    assert same == [True, True, False, False]
    with pytest.raises(ValueError, match=r"inside: CENResNet has no part 'layer5', its parts are "):
        resnet(depth, exchange=dict(inside=['layer1', 'layer5']))
    with pytest.raises(ValueError, match=r'no norm of CENResNet fits exchange='):
        resnet(depth, exchange=dict(inside=[]))


def test_deep_stem_does_not_exchange():
    with torch.device('meta'):
        names = exchanging(resnet(50, deep_stem=True))
    assert len(names) == 16
    assert not [name for name in names if 'stem' in name]


@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('zero_init_residual', [None, False])
def test_no_channel_starts_below_the_threshold(depth, zero_init_residual):
    model = resnet(depth, base_channels=4, zero_init_residual=zero_init_residual)
    model.init_weights()
    norms = [model.get_submodule(name) for name in exchanging(model)]
    assert norms
    for norm in norms:
        assert torch.equal(norm.weight, torch.ones_like(norm.weight))
        assert not norm.exchange_mask().any()


def test_bottlenecks_start_as_the_identity():
    model = resnet(50, base_channels=4)
    model.init_weights()
    assert not model.layer1[0].bn3.weight.any()
    assert model.layer1[0].bn3.weight.numel() == 2 * 16


def test_zero_start_of_exchanging_norms_is_refused():
    with pytest.raises(ValueError, match=r'every norm2 of ResNet-18 at gamma 0.*set it to False'):
        CENResNet(18, zero_init_residual=True)
    CENResNet(50, zero_init_residual=True)


def torchvision_features(model, x):
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    features = []
    for i in range(1, 5):
        x = getattr(model, f'layer{i}')(x)
        features.append(x)
    return features


def save_one_stream(depth, path, prefix=''):
    """A torchvision model with random norms, saved to a file."""
    torch.manual_seed(depth)
    model = torchvision.models.get_model(f'resnet{depth}')
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 1)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    torch.save({prefix + k: v for k, v in model.state_dict().items()}, path)
    return model.eval()


@pytest.mark.parametrize(('depth', 'prefix'), [(18, ''), (18, 'backbone.'), (50, '')])
def test_one_stream_checkpoint_loads_into_all_streams(depth, prefix, tmp_path):
    path = tmp_path / 'resnet.pth'
    single = save_one_stream(depth, path, prefix)
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    if prefix:
        init_cfg['prefix'] = prefix
    model = multi_stream(MODELS.build(dict(type='CENResNet', depth=depth, init_cfg=init_cfg)), 3)
    model.init_weights()
    model.eval()
    images = torch.randn(2 * 3, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(model(images), torchvision_features(single, images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_checkpoint_of_another_number_of_streams_is_refused(tmp_path):
    path = tmp_path / 'two_streams.pth'
    torch.save(resnet(18, base_channels=4).state_dict(), path)
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    model = resnet(18, 3, base_channels=4, init_cfg=init_cfg)
    with pytest.raises(ValueError, match=r'bn1\.norm\.weight has 128 values.*3 x 64 \(3 streams\)'):
        model.init_weights()


def test_statistics_are_frozen_unless_told_otherwise():
    images = torch.randn(4, 3, 32, 32)
    for norm_eval in (True, False):
        model = resnet(18, base_channels=4, norm_eval=norm_eval)
        model.train()
        before = model.bn1.norm.running_mean.clone()
        model(images)
        assert torch.equal(model.bn1.norm.running_mean, before) is norm_eval


def basic_block_by_streams(block, xs):
    """A BasicBlock of mmseg on a list of streams, with exchange after both convs."""

    def normalise(norm, ys):
        stats = (norm.norm.running_mean, norm.norm.running_var, norm.norm.weight, norm.norm.bias)
        mean, var, gamma, beta = (s.detach().view(len(ys), 1, -1, 1, 1) for s in stats)
        ys = [(y - mean[i]) / (var[i] + 1e-5).sqrt() * gamma[i] + beta[i] for i, y in enumerate(ys)]
        if norm.exchanges:
            ys = exchange([ys], [list(gamma.flatten(1))], 'modalities', norm.selection.threshold)[0]
        return ys

    ys = [y.relu() for y in normalise(block.bn1, [block.conv1(x) for x in xs])]
    ys = normalise(block.bn2, [block.conv2(y) for y in ys])
    if block.downsample is not None:
        xs = normalise(block.downsample[1], [block.downsample[0](x) for x in xs])
    return [(x + y).relu() for x, y in zip(xs, ys, strict=True)]


@pytest.mark.parametrize('streams', [2, 3])
def test_basic_blocks_equal_lists_of_streams(streams):
    torch.manual_seed(streams)
    model = resnet(18, streams, base_channels=8, stem_channels=8)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            module.weight.data = torch.where(torch.rand_like(module.weight) < 0.5, 0.01, 0.9)
    model.eval()
    x = torch.randn(2 * streams, 8, 8, 8)
    for block in (m for m in model.modules() if isinstance(m, BasicBlock)):
        ys = basic_block_by_streams(block, x.unflatten(0, (streams, 2)).unbind(0))
        x = block(x)
        torch.testing.assert_close(x, torch.cat(ys), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ('depth', 'millions'),
    [
        (50, (99.104, 99.157, 99.210)),
        (101, (118.096, 118.202, 118.307)),
        (152, (133.740, 133.891, 134.043)),
    ],
)
def test_parameter_counts(depth, millions):
    """RefineNet, 40 classes, 1 to 3 streams; the ensemble's scores would add one per stream."""
    with torch.device('meta'):
        head = RefineNetHead(num_classes=40)
        for streams, expected in enumerate(millions, start=1):
            model = nn.ModuleList([resnet(depth, streams), head])
            count = sum(p.numel() for p in model.parameters())
            assert round(count / 1e6, 3) == expected
