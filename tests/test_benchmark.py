"""tools/benchmark.py: the rival computes what mmcen does, and the tool reports what it promises."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from mmcen.engine import SparsityHook
from mmcen.layers import ExchangeNorm
from tools.benchmarking import measure
from tools.benchmarking.list_of_streams import ListOfStreams
from tools.benchmarking.workload import Workload, forget_pretrained

ROOT = Path(__file__).parents[1]
CONFIG = """
custom_imports = dict(imports=['mmcen'])
norm_cfg = dict(type='CENBN')
head = dict(type='FCNHead', in_channels=32, in_index=3, channels=4, num_convs=1, num_classes=5,
            dropout_ratio=0, norm_cfg=norm_cfg, concat_input=False)
model = dict(
    type='CENEncoderDecoder',
    data_preprocessor=dict(
        type='CENDataPreprocessor',
        modalities=dict(rgb=dict(mean=[0.0] * 3, std=[1.0] * 3), depth=dict(mean=[0.0], std=[1.0]))),
    backbone=dict(
        type='CENResNet', depth=18, base_channels=4, stem_channels=4, norm_cfg=norm_cfg,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')),
    decode_head=head,
    auxiliary_head=[head],
    test_cfg=dict(mode='whole'))
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=1e-3, momentum=0.9), accumulative_counts=4)
custom_hooks = [dict(type='SparsityHook', coefficient=5e-3)]
"""
REFINENET = dict(type='RefineNetHead', num_classes=5, dropout_ratio=0, light_weight=True)


def workload(streams=2, **options):
    cfg = Config.fromstring(CONFIG, '.py')
    cfg.merge_from_dict(options)
    names = ['rgb', 'depth', 'normal', 'edge'][:streams]
    spec = dict(mean=[0.0] * 3, std=[1.0] * 3)
    cfg.model.data_preprocessor.modalities = dict.fromkeys(names, spec)
    return Workload(cfg, (64, 64), 2, 'cpu', 'fp32', False, 1)


def randomised(model):
    """Statistics and shifts as after training; the gammas have been drawn."""
    for module in model.modules():
        if isinstance(module, ExchangeNorm):
            nn.init.normal_(module.norm.bias, 0, 0.1)
            nn.init.normal_(module.norm.running_mean, 0, 0.1)
            nn.init.uniform_(module.norm.running_var, 0.5, 2)
    nn.init.normal_(model.ensemble.alpha)
    return model


def by_stream(name, value, model):
    """One of our tensors under the names that it has in the list of streams."""
    owner, _, kind = name.rpartition('.norm.')
    if not owner:
        return {name: value}
    parts = value.chunk(model.grid.modalities) if value.dim() else [value] * model.grid.modalities
    return {f'{owner}.{m}.{kind}': part for m, part in enumerate(parts)}


BACKBONES = {
    'basic': {},
    'bottleneck': {'model.backbone.depth': 50},
    'all': {'model.backbone.norm_cfg': dict(type='CENBN', region='all')},
    'deep': {'model.backbone.deep_stem': True, 'model.backbone.avg_down': True},
    'refinenet': {'model.decode_head': dict(REFINENET, in_channels=[4, 8, 16, 32])},
}


@pytest.mark.parametrize(
    'streams, kind, frozen',
    [
        *((streams, 'basic', frozen) for streams in (1, 2, 3, 4) for frozen in (True, False)),
        *((2, 'bottleneck', frozen) for frozen in (True, False)),
        *((streams, kind, True) for streams in (2, 3) for kind in ('all', 'deep', 'refinenet')),
    ],
)
def test_list_of_streams_equals_ours(streams, kind, frozen):
    """Losses, gradients, a step with penalty, statistics and predictions."""
    options = {'model.backbone.norm_eval': frozen, **BACKBONES[kind]}
    if kind == 'bottleneck':
        options['model.decode_head.in_channels'] = 128
        options['model.auxiliary_head'] = None
    work = workload(streams, **options)
    ours = randomised(work.build_model())
    rival = ListOfStreams(ours)
    inputs, samples = work.random_batch(ours)
    results = []
    for model in (ours.train(), rival.train()):
        losses = model.loss(inputs, samples)
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        results.append((losses, gradients, dict(model.named_buffers())))
    (losses, gradients, buffers), (their_losses, their_gradients, their_buffers) = results
    for name, loss in losses.items():
        torch.testing.assert_close(their_losses[name], loss, rtol=1e-4, atol=1e-4)
    assert sum(grad.abs().max() > 1e-4 for grad in gradients.values()) > 0.9 * len(gradients)
    for name, gradient in gradients.items():
        for their_name, expected in by_stream(name, gradient, ours).items():
            actual = their_gradients.pop(their_name)
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4, msg=their_name)
    assert not their_gradients
    for name in (name for name in buffers if 'running' in name):
        for their_name, expected in by_stream(name, buffers[name], ours).items():
            torch.testing.assert_close(their_buffers[their_name], expected, rtol=1e-4, atol=1e-4)
    metas = [sample.metainfo for sample in samples]
    with torch.no_grad():
        expected = ours.eval().encode_decode(inputs, metas)
        actual = rival.eval().encode_decode(inputs, metas)
        for norm in (m for m in ours.modules() if isinstance(m, ExchangeNorm)):
            norm.exchange = False
        off = ours.encode_decode(inputs, metas)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    assert ((off - expected).abs().max() > 1e-3) == (streams > 1)  # channels are exchanged indeed


def test_list_of_streams_owns_its_weights_and_counts_each_once():
    ours = workload().build_model()
    rival = ListOfStreams(ours)
    assert not {p.data_ptr() for p in ours.parameters()} & {p.data_ptr() for p in rival.parameters()}
    count = [sum(p.numel() for p in model.parameters()) for model in (ours, rival)]
    assert count[0] == count[1]


@pytest.mark.parametrize(
    'options, message',
    [
        (
            {'model.backbone.type': 'ResNet', 'model.backbone.zero_init_residual': False},
            'mirrors CENResNet, the backbone is ResNet: leave it out of --compare',
        ),
        ({'model.backbone.with_cp': True}, 'has no with_cp, the backbone has with_cp=True'),
        (
            {'model.decode_head.norm_cfg': dict(type='CENBN', exchange=True)},
            r'exchanges in the backbone alone, the model also at decode_head\.convs\.0\.bn',
        ),
    ],
)
def test_what_the_list_of_streams_cannot_mirror(options, message):
    with pytest.raises(ValueError, match=message):
        workload(**options).check(['list_of_streams'])
    workload(**options).check(['exchange_off'])


def test_penalty_and_step_are_the_same():
    """The loss term of the rival is what SparsityHook adds; every step is a real one."""
    work = workload()
    variants = [work.build(name) for name in ('ours', 'list_of_streams')]
    before = [p.detach().clone() for p in variants[0].model.parameters()]
    for _ in range(2):
        for variant in variants:
            variant.prepare('train_step')
            variant.run('train_step')
    state = {}
    for name, value in variants[0].model.state_dict().items():
        state.update(by_stream(name, value, variants[0].model))
    for name, value in variants[1].model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=1e-4, atol=1e-5)
    for old, new in zip(before, variants[0].model.parameters(), strict=True):
        assert not torch.equal(old, new)
    unpenalised = work
    unpenalised.cfg.custom_hooks = []
    plain = unpenalised.build('list_of_streams')
    assert plain.coefficient == 0 != variants[1].coefficient
