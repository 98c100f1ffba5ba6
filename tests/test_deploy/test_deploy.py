"""A model taken apart gives what the folded model gives, and computes what is read, no more."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import MODELS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmcen.core import exchange_norms
from mmcen.deploy import as_it_is, deploy
from mmcen.deploy.padding import KINDS, same_padding
from mmcen.deploy.parts import fold_norm, plain_conv
from mmcen.layers import ExchangeNorm
from projects.paper import rivals  # noqa: F401  (registers)
from tests.optional import need_mmagic
from tests.specs import modality_list, task_list

COLOUR = dict(mean=[124.0, 116.0, 104.0], std=[58.0, 57.0, 57.0])
DEPTH = dict(mean=[1.0], std=[5.0], pad=0.0)
MODALITIES = dict(rgb=COLOUR, depth=DEPTH, hha=COLOUR, ir=dict(mean=[3.0], std=[2.0]))
BN = dict(type='BN')
RESNET = dict(type='CENResNet', depth=18, base_channels=8)
REFINENET = dict(
    type='RefineNetHead', in_channels=[8, 16, 32, 64], channels=8, num_classes=5, light_weight=True
)
PSP = dict(
    type='PSPHead', in_channels=64, channels=12, in_index=3, num_classes=5, norm_cfg=BN,
    pool_scales=(1, 2),
)  # fmt: skip
MOBILENET = dict(type='MobileNetV2', out_indices=(1, 6), norm_cfg=BN)
ASPP = dict(
    type='ASPPHead', in_channels=320, in_index=1, channels=8, num_classes=5, dilations=(1, 2),
    norm_cfg=BN,
)  # fmt: skip
HRNET = dict(
    type='HRNet',
    norm_cfg=BN,
    extra=dict(
        stage1=dict(num_modules=1, num_branches=1, block='BOTTLENECK', num_blocks=(1,),
                    num_channels=(8,)),
        stage2=dict(num_modules=1, num_branches=2, block='BASIC', num_blocks=(1, 1),
                    num_channels=(4, 8)),
        stage3=dict(num_modules=1, num_branches=3, block='BASIC', num_blocks=(1, 1, 1),
                    num_channels=(4, 8, 16)),
        stage4=dict(num_modules=1, num_branches=4, block='BASIC', num_blocks=(1, 1, 1, 1),
                    num_channels=(4, 8, 16, 32)),
    ),
)  # fmt: skip
FCN = dict(
    type='FCNHead', in_channels=[4, 8, 16, 32], in_index=(0, 1, 2, 3), channels=8,
    input_transform='resize_concat', num_classes=5, norm_cfg=BN,
)  # fmt: skip
UNET = dict(type='CENUNetGenerator', downs=4, base_channels=8)
EFFICIENTNET = dict(type='CENTIMMBackbone', model_name='tf_efficientnet_lite0')
DENSE = dict(
    type='CENDenseNetwork',
    backbone=RESNET,
    decode_head={k: v for k, v in PSP.items() if k != 'num_classes'},
)
CLASSES = dict(seg=dict(type='ClassHead', num_classes=6))
TASKS = dict(
    fusion=dict(rgb=['normal', 'depth', 'edge']),
    cycle=dict(rgb=['normal', 'depth'], depth=['rgb', 'normal'], normal=['depth', 'rgb']),
    multitask=dict(normal=['rgb'], seg=['rgb']),
    both=dict(normal=['rgb', 'depth'], seg=['rgb', 'depth']),
)


def segmentor(streams=2, backbone=RESNET, head=REFINENET, kind='CENEncoderDecoder', **kwargs):
    chosen = dict(list(MODALITIES.items())[:streams])
    preprocessor = dict(type='CENDataPreprocessor', modalities=modality_list(chosen))
    return MODELS.build(
        dict(
            type=kind,
            backbone=backbone,
            decode_head=head,
            data_preprocessor=preprocessor,
            **kwargs,
        )
    )


def multitask(setting, network, **kwargs):
    tasks = TASKS[setting]
    heads = {task: head for task, head in CLASSES.items() if task in tasks}
    tasks = task_list(tasks, heads)
    return MODELS.build(dict(type='CENMultiTask', tasks=tasks, network=network, **kwargs))


def trained(model, small=0.6):
    """As after training: norms of their own, a share of the scales below the threshold."""
    with torch.no_grad():
        for norm in (m for m in model.modules() if isinstance(m, ExchangeNorm)):
            gamma = 0.5 + torch.rand_like(norm.weight)
            norm.weight.copy_(torch.where(torch.rand_like(gamma) < small, gamma * 5e-3, gamma))
            norm.bias.uniform_(-0.5, 0.5)
            if norm.norm.running_mean is not None:
                norm.norm.running_mean.uniform_(-0.2, 0.2)
                norm.norm.running_var.uniform_(0.5, 1.5)
        for score in (p for name, p in model.named_parameters() if name == 'ensemble.alpha'):
            score.uniform_(-1, 1)
    return model.eval()


def compare(model, outputs=None, size=(64, 96), batch=2):
    """Deployed network against the model's own prediction; returns the network."""
    network = deploy(model, outputs)
    frames = [255 * torch.rand(batch, c, *size) for c in network.inputs.values()]
    with torch.no_grad():
        found = dict(zip(network.outputs, network(*frames), strict=True))
        for name, wanted in predict(model, dict(zip(network.inputs, frames, strict=True))).items():
            if name in found:
                scale = wanted.abs().max()
                torch.testing.assert_close(
                    found[name] / scale, wanted / scale, rtol=0, atol=1e-5, msg=name
                )
    assert not any(isinstance(m, ExchangeNorm) for m in network.modules())
    return network


def predict(model, frames):
    """By the ways that training and testing take."""
    size = next(iter(frames.values())).shape[2:]
    if hasattr(model, 'encode_decode'):
        inputs = model.data_preprocessor(dict(inputs=frames))['inputs']
        logits = model.encode_decode(inputs, [dict(img_shape=size)])
        names = ['ensemble', *model.streams]
        return dict(zip(names, logits.chunk(len(names), 1), strict=True))
    targets = dict.fromkeys(model.names, frames['rgb' if 'rgb' in frames else 'normal'])
    inputs = model.data_preprocessor(dict(inputs=targets | frames))['inputs']
    outputs = {f'{t}/{n}': y for t, own in model(inputs).items() for n, y in own.items()}
    return {n: y if n.startswith('seg') else (y + 1) * 127.5 for n, y in outputs.items()}


SEGMENTORS = {
    'refinenet': dict(),
    'three streams': dict(streams=3),
    'four streams': dict(streams=4),
    'one stream': dict(streams=1),
    'bottleneck': dict(
        backbone=dict(RESNET, depth=50), head=dict(REFINENET, in_channels=[32, 64, 128, 256])
    ),
    'exchange everywhere': dict(exchange=dict(region='all')),
    'three, everywhere': dict(streams=3, exchange=dict(region='all')),
    'fixed channels': dict(backbone=dict(RESNET, norm_cfg=dict(type='CENBN', selection='fixed'))),
    'all norms': dict(backbone=MOBILENET, head=ASPP, exchange=dict(after='every')),
    'private parts': dict(exchange=dict(private=['conv1', 'layer2'])),
    'budget': dict(exchange=dict(budget=0.3)),
    'psp': dict(head=PSP),
    'mobilenet, aspp': dict(backbone=MOBILENET, head=ASPP),
    'hrnet, fcn': dict(backbone=HRNET, head=FCN),
    'hrnet, fcn, aligned': dict(backbone=HRNET, head=dict(FCN, align_corners=True)),
    'unshared': dict(kind='UnsharedEncoderDecoder', convs='private'),
    'shared norms': dict(kind='UnsharedEncoderDecoder', norms='shared'),
    'padded as by TensorFlow': dict(
        backbone=dict(MOBILENET, conv_cfg=dict(type='Conv2dAdaptivePadding')), head=ASPP
    ),
    'timm': dict(backbone=EFFICIENTNET, head=dict(REFINENET, in_channels=[24, 40, 112, 320])),
    'align corners': dict(head=dict(PSP, align_corners=True)),
}


def compare_subsets(model, subsets):
    """Deployed networks of some modalities against the model's own prediction from these."""
    for present in subsets:
        network = deploy(model, present=present)
        assert list(network.inputs) == list(present)
        frames = {name: 255 * torch.rand(2, c, 64, 64) for name, c in network.inputs.items()}
        data = model.data_preprocessor(dict(inputs=frames))
        assert data['present'] == list(present)
        with torch.no_grad():
            wanted = model(**data)
            found = dict(zip(network.outputs, network(*frames.values()), strict=True))
            whole = as_it_is(model, present=present)
            for name, y in zip(whole.outputs, whole(*frames.values()), strict=True):
                torch.testing.assert_close(found[name], y, rtol=1e-4, atol=1e-3)
        yield wanted, found


@pytest.mark.parametrize('dropout', [None, dict(p=0.3, own_norms=True)])
def test_segmentors_of_a_subset(dropout):
    model = trained(segmentor(streams=3, modality_dropout=dropout))
    names = model.data_preprocessor.modalities
    subsets = [names[:1], names[1:], [names[0], names[2]]]
    for present, (wanted, found) in zip(subsets, compare_subsets(model, subsets), strict=True):
        assert list(wanted) == list(found) == ['ensemble', *present]
        # absent streams cost nothing
        folded = operations(as_it_is(model, present=present))
        assert 3 * folded == len(present) * operations(as_it_is(model))


@pytest.mark.parametrize('network', [DENSE, UNET], ids=['dense', 'unet'])
@pytest.mark.parametrize('setting', ['cycle', 'both', 'fusion'])
def test_tasks_of_a_subset(setting, network):
    # norms have other values where an input is absent
    model = trained(multitask(setting, network, modality_dropout=dict(p=0.3, own_norms=True)))
    subsets = dict(
        cycle=[['normal'], ['normal', 'depth']], both=[['depth']], fusion=[['normal', 'edge']]
    )[setting]
    for present, (wanted, found) in zip(subsets, compare_subsets(model, subsets), strict=True):
        tasks = {t: [n for n in own if n in present] for t, own in TASKS[setting].items()}
        folded = operations(as_it_is(model, present=present))
        assert folded < operations(as_it_is(model))
        named = {f'{t}/{n}' for t, own in tasks.items() if own for n in ['ensemble', *own]}
        assert set(found) == named
        for task, own in wanted.items():
            for name, y in own.items():
                y = y if task == 'seg' else (y + 1) * 127.5
                torch.testing.assert_close(found[f'{task}/{name}'], y, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('name', SEGMENTORS)
def test_segmentors(name):
    if name == 'timm':
        pytest.importorskip('timm')
    model = trained(segmentor(**SEGMENTORS[name]))
    assert any(exchange_norms(model)) == (name not in ('one stream', 'shared norms'))
    compare(model)
    compare(model, [model.streams[-1]])


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('stride', [1, 2, 3])
@pytest.mark.parametrize('kernel', [1, 3, 5])
def test_padding_of_tensorflow(kind, stride, kernel):
    """At every remainder of the size by the stride."""
    conv = kind(2, 3, kernel, stride=stride)
    padding, plain = same_padding(conv), plain_conv(conv)
    assert (padding is None) == (kernel < stride)
    for size in range(6, 12) if padding is not None else ():
        x = torch.randn(1, 2, size, size + 1)
        torch.testing.assert_close(plain(padding(x)), conv(x))


NETWORKS = {
    'unet': UNET,
    'no exchange between tasks': dict(UNET, decoder=dict(exchange=False)),
    'encoder for each task': dict(UNET, encoder=dict(groups='task')),
    'batch norms': dict(UNET, norm_cfg=BN),
    'shared norms': dict(UNET, type='UnsharedUNet', norms='shared'),
    'dense': DENSE,
    'other heads': dict(
        DENSE,
        decode_head=[DENSE['decode_head'], dict(DENSE['decode_head'], channels=10)],
    ),
}  # fmt: skip


@pytest.mark.parametrize('network', NETWORKS)
@pytest.mark.parametrize('setting', TASKS)
def test_tasks(setting, network):
    if network == 'other heads' and len(TASKS[setting]) != 2:
        pytest.skip('two heads for two tasks')
    model = trained(multitask(setting, NETWORKS[network]))
    names = compare(model, size=(64, 64)).outputs
    compare(model, [names[-1]], size=(64, 64))


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 4), st.floats(0, 1), st.sampled_from(['disjoint', 'all']), st.data())
def test_any_share_of_channels(streams, small, region, data):
    backbone = dict(RESNET, num_stages=2, out_indices=(0, 1))
    backbone |= dict(strides=(1, 2), dilations=(1, 1))
    head = dict(REFINENET, in_channels=[8, 16], in_index=(0, 1))
    model = trained(segmentor(streams, backbone, head, exchange=dict(region=region)), small)
    names = ['ensemble', *model.streams]
    wanted = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    assert compare(model, wanted, (32, 32), 1).outputs == tuple(wanted)


def operations(network, size=(64, 64)):
    frames = [torch.zeros(1, channels, *size) for channels in network.inputs.values()]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.requires_grad_(False)(*frames)
    return counter.get_total_flops()


def test_unread_channels_are_not_computed():
    """Every exchanged channel saves its part of the convolution in front, and nothing else."""
    model = trained(segmentor())
    names = {norm: name for name, norm in model.named_modules() if isinstance(norm, ExchangeNorm)}
    saved = 0
    for block in (m for m in model.modules() if type(m).__name__ == 'BasicBlock'):
        for norm in (m for m in block.modules() if isinstance(m, ExchangeNorm) and m.exchanges):
            conv = block.get_submodule(names[norm].rsplit('.', 1)[1].replace('bn', 'conv'))
            hooked = []
            handle = conv.register_forward_hook(
                lambda m, _, y, into=hooked: into.append(y.shape[2] * y.shape[3])
            )
            with torch.no_grad():
                model(torch.zeros(1, 6, 64, 64))
            handle.remove()
            cost = 2 * conv.weight[0].numel() * hooked[0]
            saved += int(norm.exchange_mask().sum()) * cost
    assert saved > 0
    assert operations(as_it_is(model)) - operations(deploy(model)) == saved


def test_unread_channels_of_depthwise_convolutions():
    """They save the convolution that expands, too."""
    pytest.importorskip('timm')
    head = dict(REFINENET, in_channels=[24, 40, 112, 320])
    model = trained(segmentor(backbone=EFFICIENTNET, head=head))
    network = model.backbone.timm_model
    costs, saved = {}, 0
    handles = [
        conv.register_forward_hook(
            lambda m, _, y: costs.update({m: 2 * m.weight[0].numel() * y.shape[2] * y.shape[3]})
        )
        for conv in network.modules()
        if isinstance(conv, nn.Conv2d)
    ]
    with torch.no_grad():
        model(torch.zeros(1, 6, 64, 64))
    for handle in handles:
        handle.remove()
    for block in (block for stage in network.blocks for block in stage):
        expands = hasattr(block, 'conv_pw') and hasattr(block, 'bn3')
        first = block.conv_pw if expands else network.conv_stem
        norm = block.bn2 if expands else block.bn1
        saved += int(norm.exchange_mask().sum()) * (costs[first] + costs[block.conv_dw])
    assert saved > 0
    assert operations(as_it_is(model)) - operations(deploy(model)) == saved


def test_a_stream_alone_needs_less():
    model = trained(segmentor())
    whole, alone = (operations(deploy(model, names)) for names in (None, ['rgb']))
    assert alone < whole
    nothing = trained(segmentor(), small=0.0)
    single = deploy(nothing, ['rgb'])
    assert operations(single) == operations(as_it_is(segmentor(1)))
    depth = [name for name, m in single.named_modules() if isinstance(m, nn.Conv2d)]
    assert len(depth) == sum(isinstance(m, nn.Conv2d) for m in segmentor(1).modules())


def test_the_model_stays_as_it_is():
    model = trained(segmentor()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    network = deploy(model)
    assert model.training
    frames = [torch.rand(1, c, 64, 64) for c in network.inputs.values()]
    torch.testing.assert_close(network(*frames), network(*frames))  # no dropout of the model's
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_mmagics_preprocessor():
    need_mmagic()
    from mmengine.config import Config

    from tests.training import ROOT

    cfg = Config.fromfile(ROOT / 'configs/cen/rooms_rgb-shade_to_normal.py').model
    compare(trained(MODELS.build(cfg)), size=(64, 64))


FUSED = dict(
    kind='FusionEncoderDecoder', fusion=dict(type='ConcatFusion', after=['layer1', 'layer2'])
)
MERGED = dict(type='ConcatFusion', after=(1, 2), merge=True)


@pytest.mark.parametrize(
    'make, outputs, message',
    [
        (lambda: segmentor(), ['lidar'], "outputs ['lidar'] are unknown: choose of ['ensemble'"),
        (lambda: segmentor(), [], 'outputs [] are unknown'),
        (lambda: segmentor(**FUSED), None, 'ConcatFusion is not exchange and cannot be deployed'),
        (lambda: multitask('fusion', dict(UNET, type='FusionUNet', fusion=MERGED)), None,
         'fusion with merge=True is not exchange and cannot be deployed'),
        (lambda: multitask('both', dict(UNET, type='AblatedUNet', replace='zero')), None,
         "StandIn('zero', streams=2) is an ablation and cannot be deployed"),
        (lambda: multitask('both', dict(UNET, type='AblatedUNet', shared='statistics')), None,
         'PartlySharedNorm cannot be deployed: streams share a part of it'),
        (lambda: multitask('multitask', dict(UNET, type='AdaShareUNet')), None,
         'LearnedPerTask is not exchange and cannot be deployed'),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_apart(make, outputs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        deploy(trained(make()), outputs)


def test_other_models():
    with pytest.raises(TypeError, match='Linear cannot be deployed: give a CENEncoderDecoder'):
        deploy(nn.Linear(1, 1))


def test_transposed_convolutions_that_pad_their_output():
    conv, norm = nn.ConvTranspose2d(3, 4, 3, 2, 1, output_padding=1), nn.BatchNorm2d(4).eval()
    norm.running_mean.uniform_(-1, 1)
    x = torch.rand(2, 3, 5, 7)
    torch.testing.assert_close(fold_norm(conv, norm)(x), norm(conv(x)))


@pytest.mark.parametrize('mode', ['circular', 'reflect'])
def test_other_paddings(mode):
    model = segmentor()
    for conv in (m for m in model.modules() if type(m) is nn.Conv2d and m.padding != (0, 0)):
        conv.padding_mode = mode
        conv._reversed_padding_repeated_twice = [p for p in conv.padding[::-1] for _ in range(2)]
    compare(trained(model))


def test_forwards_that_depend_on_their_input():
    class Odd(nn.Module):
        def forward(self, x):
            return [x] * 4 if x.sum() > 0 else [x] * 3

    model = segmentor()
    model.backbone = Odd()
    model.backbone.stream_grid = model.grid
    with pytest.raises(ValueError, match='cannot be taken apart .* without deploying'):
        deploy(model)


def test_fusion_serves_as_it_is():
    model = trained(segmentor(**FUSED))
    network = as_it_is(model)
    frames = [torch.rand(1, c, 64, 64) for c in network.inputs.values()]
    with torch.no_grad():
        wanted = predict(model, dict(zip(network.inputs, frames, strict=True)))
        for name, y in zip(network.outputs, network(*frames), strict=True):
            torch.testing.assert_close(y, wanted[name])
