"""Any network becomes multi-stream: each stream equals the stock network, exchange the oracle."""

import subprocess
import sys
from copy import deepcopy

import pytest
import timm
import torch
import torchvision
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn

from mmcen.core import ExchangeNorm, PrivateCopies, convert
from tests.oracle import exchange as exchange_by_loops

HRNET = dict(
    stage1=dict(
        num_modules=1, num_branches=1, block='BOTTLENECK', num_blocks=(1,), num_channels=(8,)
    ),
    stage2=dict(
        num_modules=1, num_branches=2, block='BASIC', num_blocks=(1, 1), num_channels=(8, 16)
    ),
    stage3=dict(
        num_modules=1, num_branches=3, block='BASIC', num_blocks=(1,) * 3, num_channels=(8, 16, 32)
    ),
    stage4=dict(
        num_modules=1,
        num_branches=4,
        block='BASIC',
        num_blocks=(1,) * 4,
        num_channels=(8, 16, 32, 64),
    ),
)
TWINS = dict(
    embed_dims=[8, 16, 32, 64],
    depths=[1, 1, 2, 1],
    num_heads=[1, 2, 4, 8],
    patch_sizes=[4, 2, 2, 2],
    strides=[4, 2, 2, 2],
    mlp_ratios=[2] * 4,
    sr_ratios=[8, 4, 2, 1],
)


def of_mmseg(kind, **options):
    def build():
        init_default_scope('mmseg')
        return MODELS.build(dict(type=kind, **options))

    return build


def of_timm(name):
    return lambda: timm.create_model(name, features_only=True)


# network, norms, and how many exchange by 'spatial', 'depthwise' and 'norm' (0: the rule fits none)
NETWORKS = {
    'ResNet-50': (of_mmseg('ResNet', depth=50, base_channels=8, stem_channels=8), 53, 17, 0, 52),
    'HRNet': (of_mmseg('HRNet', extra=HRNET), 53, 40, 0, 51),
    'MobileNetV2': (of_mmseg('MobileNetV2'), 51, 18, 17, 30),
    'UNet': (of_mmseg('UNet', base_channels=8), 22, 18, 0, 18),
    'BiSeNetV2': (of_mmseg('BiSeNetV2'), 53, 39, 16, 52),
    'PIDNet': (of_mmseg('PIDNet', channels=8), 73, 39, 0, 71),
    'MiT': (
        of_mmseg('MixVisionTransformer', embed_dims=8, num_heads=[1, 2, 5, 8]),
        53,
        4,
        0,
        45,
    ),
    'Swin': (of_mmseg('SwinTransformer', embed_dims=24, depths=(1, 1, 2, 1)), 18, 1, 0, 10),
    'PCPVT': (of_mmseg('PCPVT', norm_after_stage=False, **TWINS), 18, 4, 0, 14),
    'SVT': (of_mmseg('SVT', norm_after_stage=True, windiow_sizes=[7] * 4, **TWINS), 19, 4, 0, 11),
    'ViT': (
        of_mmseg(
            'VisionTransformer',
            img_size=64,
            embed_dims=32,
            num_layers=2,
            num_heads=4,
            out_indices=(0, 1),
            final_norm=True,
        ),
        5,
        0,
        0,
        4,
    ),
    'MSCAN': (
        of_mmseg('MSCAN', embed_dims=[8, 16, 32, 64], depths=[1] * 4, norm_cfg=dict(type='BN')),
        17,
        5,
        0,
        8,
    ),
    'resnet18': (of_timm('resnet18'), 20, 17, 0, 19),
    'convnext_atto': (of_timm('convnext_atto'), 16, 13, 12, 12),
    'efficientnet_lite0': (of_timm('efficientnet_lite0'), 48, 17, 16, 27),
    'mobilenetv3_small_050': (of_timm('mobilenetv3_small_050'), 34, 12, 11, 21),
    'regnetx_002': (of_timm('regnetx_002'), 44, 14, 0, 43),
    'vit_tiny_patch16_224': (of_timm('vit_tiny_patch16_224'), 24, 0, 0, 24),
    'deeplabv3_resnet50': (
        lambda: torchvision.models.segmentation.deeplabv3_resnet50(
            weights_backbone=None, num_classes=3
        ),
        60,
        21,
        0,
        57,
    ),
    'lraspp': (
        lambda: torchvision.models.segmentation.lraspp_mobilenet_v3_large(
            weights_backbone=None, num_classes=3
        ),
        47,
        16,
        15,
        40,
    ),
}
RULES = ('spatial', 'depthwise', 'norm', 'every')


def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    values = value.values() if isinstance(value, dict) else value
    return [tensor for part in values for tensor in tensors(part)]


def drop_nothing(*networks):
    for network in networks:
        for module in network.modules():
            if 'Drop' in type(module).__name__:
                module.eval()


def size_of(name):
    return 224 if name.endswith('224') else 64


@torch.no_grad()
def draw_norms(network):
    """Values that differ from stream to stream and from the start."""
    for norm in (m for m in network.modules() if isinstance(m, ExchangeNorm)):
        norm.norm.weight.uniform_(0.5, 1.5)
        if norm.bias is not None:
            norm.bias.uniform_(-0.5, 0.5)


def stock_of_stream(stock, network, stream):
    """The stock network with the norms of one stream of the converted network."""
    stock = deepcopy(stock)
    state = stock.state_dict()
    for key, value in network.state_dict().items():
        own = key.replace('.norm.', '.', 1) if key not in state else key
        for candidate in (own, *(_shorter(key))):
            if candidate in state:
                own = candidate
                break
        if value.shape != state[own].shape:
            value = value.unflatten(0, (-1, len(state[own])))[stream]
        state[own] = value
    stock.load_state_dict(state)
    return stock


def _shorter(key):
    """A norm's entry lies one level deeper in a converted network: all places to leave one out."""
    parts = key.split('.')
    for i, part in enumerate(parts):
        if part == 'norm':
            yield '.'.join(parts[:i] + parts[i + 1 :])


@pytest.mark.parametrize('name', NETWORKS)
def test_without_exchange_a_stream_is_the_stock_network(name):
    torch.manual_seed(0)
    build, count, *_ = NETWORKS[name]
    stock = build()
    network = convert(deepcopy(stock), modalities=3, exchange=None)
    assert sum(isinstance(m, ExchangeNorm) for m in network.modules()) == count
    assert_streams_are_stock(stock, network, torch.randn(3, 2, 3, size_of(name), size_of(name)))


def assert_streams_are_stock(stock, network, frames):
    """Outputs and statistics, training and not; ``frames`` are (streams, batch, ...)."""
    draw_norms(network)
    stocks = [stock_of_stream(stock, network, stream) for stream in range(len(frames))]
    for training in (False, True):
        for one in (network, *stocks):
            one.train(training)
        drop_nothing(network, *stocks)
        with torch.no_grad():
            found = tensors(network(frames.flatten(0, 1)))
            expected = [tensors(one(x)) for one, x in zip(stocks, frames, strict=True)]
        assert len(found) == len(expected[0]) > 0
        for i, output in enumerate(found):
            for stream, part in enumerate(output.chunk(len(frames))):
                torch.testing.assert_close(part, expected[stream][i], rtol=1e-5, atol=1e-5)
    for stream, one in enumerate(stocks):
        again = stock_of_stream(stock, network, stream).state_dict()
        for key, value in one.state_dict().items():
            torch.testing.assert_close(again[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('rule', RULES)
@pytest.mark.parametrize('name', NETWORKS)
def test_rules(name, rule):
    build, total, *counts = NETWORKS[name]
    count = [*counts, total][RULES.index(rule)]
    network = build()
    if not count:
        with pytest.raises(ValueError, match=f"no norm of .* fits exchange='{rule}'"):
            convert(network, modalities=2, exchange=rule)
        return
    convert(network, modalities=2, exchange=rule)
    norms = [m for m in network.modules() if isinstance(m, ExchangeNorm)]
    assert sum(norm.exchanges for norm in norms) == count
    assert {id(norm.grid) for norm in norms} == {id(network.stream_grid)}


@pytest.mark.parametrize('rule', ['depthwise', 'norm'])
@pytest.mark.parametrize('name', ['efficientnet_lite0', 'convnext_atto'])
def test_exchange_at_every_norm_is_the_oracles(name, rule):
    """Seen from outside: what each exchanging norm takes and returns inside a network."""
    torch.manual_seed(0)
    network = convert(NETWORKS[name][0](), modalities=2, exchange=rule, threshold=0.6).eval()
    draw_norms(network)
    assert_norms_follow_the_oracle(network, torch.randn(2, 2, 3, 64, 64))


def assert_norms_follow_the_oracle(network, frames, threshold=0.6):
    seen = {}
    norms = {n: m for n, m in network.named_modules() if isinstance(m, ExchangeNorm)}
    for key, norm in norms.items():
        stock = norm.forward

        def watched(x, *, key=key, stock=stock):
            before = x.clone()
            y = stock(x)
            seen[key] = before, y.clone()
            return y

        norm.forward = watched
    with torch.no_grad():
        network(frames.flatten(0, 1))
    assert len(seen) == len(norms)
    replaced = 0
    for key, (x, y) in seen.items():
        norm = norms[key]
        off, norm.exchange, after, norm.after = norm.exchange, False, norm.after, None
        with torch.no_grad():
            plain = type(norm).forward(norm, x).movedim(norm.channel_dim, 1).chunk(len(frames))
            if norm.selection is not None and off:
                gammas = list(norm.gamma().detach()[0])
                plain = exchange_by_loops([list(plain)], [gammas], 'modalities', threshold)[0]
                replaced += sum(int((g.abs() < threshold).sum()) for g in gammas)
            expected = torch.cat(tuple(plain)).movedim(1, norm.channel_dim)
            expected = expected if after is None else after(expected)
        torch.testing.assert_close(y, expected, rtol=0, atol=0)
    assert replaced > 50


def test_a_network_of_volumes_with_four_modalities():
    """As of the scans of one brain: the number of spatial dimensions does not matter."""
    nets = pytest.importorskip('monai.networks.nets.basic_unet')
    torch.manual_seed(0)
    features = (8, 8, 16, 16, 16, 8)
    stock = nets.BasicUNet(spatial_dims=3, in_channels=1, out_channels=3, features=features)
    frames = torch.randn(4, 1, 1, 32, 32, 32)
    network = convert(deepcopy(stock), modalities=4, exchange=None, example=frames[0])
    assert_streams_are_stock(stock, network, frames)
    network = convert(stock, modalities=4, threshold=0.6, example=frames[0]).eval()
    draw_norms(network)
    norms = [m for m in network.modules() if isinstance(m, ExchangeNorm)]
    assert sum(norm.exchanges for norm in norms) == len(norms) == 18
    assert_norms_follow_the_oracle(network, frames)


def test_one_stream_weights_load_before_and_after_conversion_and_a_saved_network_strictly():
    build = NETWORKS['efficientnet_lite0'][0]
    torch.manual_seed(0)
    trained = build()
    for p in trained.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    before = convert(deepcopy(trained), modalities=2, exchange=None).eval()
    after = convert(build(), modalities=2, exchange=None).eval()
    after.load_state_dict(trained.state_dict())
    again = convert(build(), modalities=2, exchange=None).eval()
    again.load_state_dict(before.state_dict())
    x = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        found = [network(x) for network in (before, after, again)]
        stock = trained.eval()(x)
    for other in (*found[1:], stock):
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b)


def test_streams_that_are_present():
    """The others cost nothing and do not matter; a stream that is alone keeps its channels."""
    torch.manual_seed(0)
    stock = NETWORKS['resnet18'][0]()
    network = convert(deepcopy(stock), modalities=3, threshold=0.9).eval()
    draw_norms(network)
    frames = torch.randn(3, 1, 3, 64, 64)
    with torch.no_grad():
        for stream in range(3):
            with network.stream_grid.only(modalities=[stream]):
                alone = network(frames[stream])
            one = stock_of_stream(stock, network, stream).eval()
            for a, b in zip(alone, one(frames[stream]), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        with network.stream_grid.only(modalities=[0, 2]):
            two = network(frames[[0, 2]].flatten(0, 1))
        assert all(len(feature) == 2 for feature in two)
        whole = network(frames.flatten(0, 1))
    assert network.stream_grid.is_whole
    assert not torch.allclose(two[-1][0], whole[-1][0])


def test_private_parts_have_a_copy_for_each_stream():
    torch.manual_seed(0)
    stock = NETWORKS['resnet18'][0]()
    network = convert(deepcopy(stock), modalities=2, private=['conv1', 'layer1.0'])
    assert isinstance(network.conv1, PrivateCopies)
    assert isinstance(network.layer1[0], PrivateCopies)
    assert not any(isinstance(m, ExchangeNorm) for m in network.layer1[0].modules())
    state = stock.state_dict()
    network.load_state_dict(state)
    assert all(torch.equal(c.weight, state['conv1.weight']) for c in network.conv1.copies)
    with torch.no_grad():
        network.conv1.copies[1].weight.zero_()
    y = network.conv1(torch.ones(4, 3, 16, 16))
    assert y[:2].abs().sum() > 0 == y[2:].abs().sum()


class Odd(nn.Module):
    """A norm of an unknown kind."""

    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(4))


OddNorm = type('OddNorm', (Odd,), {})


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (
            lambda: convert(nn.Sequential(nn.Conv2d(3, 4, 3), OddNorm()), modalities=2),
            "'1' is a OddNorm, a norm of an unknown kind: streams would share it",
        ),
        (
            lambda: convert(small(), modalities=2, exchange='all'),
            r"exchange must be one of \('spatial', 'depthwise', 'norm', 'every'\), .* got 'all'",
        ),
        (
            lambda: convert(small(), modalities=2, exchange=lambda *_: False),
            'no norm of Sequential fits exchange=',
        ),
        (
            lambda: convert(convert(small(), modalities=2), modalities=2),
            r'Sequential is converted already, for StreamGrid\(tasks=1, modalities=2\)',
        ),
        (
            lambda: convert(small(), modalities=2, private=['stem']),
            "private: Sequential has no part 'stem', its parts are 0, 1",
        ),
        (
            lambda: convert(small(), modalities=2, inside=['1', 'layer4']),
            "inside: Sequential has no part 'layer4', its parts are 0, 1",
        ),
        (
            lambda: convert(small(), modalities=2, inside=['0']),
            "no norm of Sequential fits exchange='spatial'",
        ),
        (
            lambda: convert(small(), modalities=2, example=torch.zeros(1, 5, 8, 8)),
            r'Sequential fails on inputs of \[\(1, 5, 8, 8\)\]: .* Give a valid input as',
        ),
        (
            lambda: convert(small(), modalities=2).stream_grid.only(modalities=[1, 0]).__enter__(),
            r'modalities \[1, 0\]: name some of \[0, 1\] in ascending order',
        ),
        (
            lambda: convert(small(), modalities=2).stream_grid.only(modalities=[2]).__enter__(),
            r'modalities \[2\]: name some of \[0, 1\] in ascending order, each once',
        ),
        (lambda: convert(small(), modalities=2)(torch.zeros(3, 3, 8, 8)), 'batch 3 is not divis'),
        (lambda: convert(small(), modalities=0), 'modalities must be a positive integer, got 0'),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def exchanging(network):
    norms = network.named_modules()
    return [name for name, m in norms if isinstance(m, ExchangeNorm) and m.exchanges]


def test_exchange_inside_named_parts():
    network = NETWORKS['resnet18'][0]()
    convert(network, modalities=2, inside=['layer1.0', 'layer4'])
    blocks = ('layer1.0', 'layer4.0', 'layer4.1')
    assert exchanging(network) == [f'{block}.bn{i}' for block in blocks for i in (1, 2)]
    private = [m for m in network.modules() if isinstance(m, ExchangeNorm)]
    assert len(private) == NETWORKS['resnet18'][1]


def test_norms_of_a_config_are_converted_with_their_own_options():
    """Those that the norm states go before those of the call."""

    def build(**options):
        norm_cfg = dict(type='CENBN', **options)
        return MODELS.build(dict(type='ResNet', depth=18, base_channels=4, norm_cfg=norm_cfg))

    network = convert(build(threshold=0.1), modalities=2, threshold=0.5, region='all')
    norms = [network.get_submodule(name) for name in exchanging(network)]
    assert len(norms) == 17
    assert {norm.selection.threshold for norm in norms} == {0.1}
    assert {norm.selection.region for norm in norms} == {'all'}
    assert all(type(norm.norm) is nn.BatchNorm2d for norm in norms)
    network = convert(build(exchange=False), modalities=2)
    assert not exchanging(network)
    with pytest.raises(ValueError, match=MADE_FOR_OTHERS):
        convert(build(modalities=3), modalities=2)


MADE_FOR_OTHERS = (
    r'a norm was made for StreamGrid\(tasks=1, modalities=3\), the network is converted to '
    r'StreamGrid\(tasks=1, modalities=2\): leave tasks and modalities out of norm_cfg'
)


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_needs_torch_alone():
    """No part of OpenMMLab, and nothing else that an environment of torch alone lacks."""
    code = (
        'import sys\n'
        "absent = {'mmengine', 'mmcv', 'mmseg', 'mmagic', 'cv2', 'timm', 'torchvision'}\n"
        'path = sys.meta_path.pop()\n'
        'class Hide:\n'
        '    @staticmethod\n'
        '    def find_spec(name, *args):\n'
        "        return None if name.partition('.')[0] in absent else path.find_spec(name, *args)\n"
        'sys.meta_path.append(Hide)\n'
        'import torch, mmcen\n'
        'from torch import nn\n'
        'block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))\n'
        'print(mmcen.convert(block, modalities=2)(torch.rand(4, 3, 8, 8)).shape)\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == 'torch.Size([4, 4, 6, 6])', done.stderr
