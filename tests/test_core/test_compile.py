"""Compiled networks equal those in eager mode: one graph for all sizes of a batch, no breaks."""

from copy import deepcopy

import pytest
import timm
import torch
import torchvision
from mmengine.registry import MODELS
from torch import nn
from torch._dynamo import mark_dynamic
from torch._dynamo.testing import CompileCounterWithBackend

from mmcen import models  # noqa: F401  (registers)
from mmcen.budget import BudgetSchedule, ExchangeBudget
from mmcen.core import ExchangeNorm, Fixed, StreamGrid, convert
from mmcen.core.selection import make_selection
from tests.streams import multi_stream
from tests.test_core.test_norm import KINDS, C

OPTIONS = {'threshold': dict(threshold=0.5), 'budget': dict(budget=0.3)}


@pytest.fixture(autouse=True)
def doubles():
    """Rounding must not decide which of two nearly equal values a maximum takes."""
    torch._dynamo.reset()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)
    torch._dynamo.reset()


def backbone(kind, options, **settings):
    return multi_stream(MODELS.build(dict(type=kind, norm_eval=False, **settings)), **options)


def efficientnet(options):
    """The first layers of configs/cen/nyud_lwrefinenet_efflite0.py."""
    settings = dict(model_name='tf_efficientnet_lite0', out_indices=(0,))
    return backbone('CENTIMMBackbone', options, **settings)


def cen_resnet(options):
    settings = dict(depth=18, num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,))
    return backbone('CENResNet', options, **settings)


def head(options):
    return MODELS.build(
        dict(
            type='RefineNetHead',
            in_channels=[6, 8],
            in_index=[0, 1],
            channels=6,
            num_classes=5,
            light_weight=True,
            dropout_ratio=0.0,
            loss_decode=dict(type='mmseg.CrossEntropyLoss'),
        )
    )


def converted_resnet(options):
    whole = torchvision.models.resnet18()
    network = nn.Sequential(whole.conv1, whole.bn1, whole.relu, whole.maxpool, whole.layer1[0])
    return convert(network, modalities=2, **options)


def converted_convnext(options):
    whole = timm.create_model('convnext_atto', depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))
    network = nn.Sequential(whole.stem, whole.stages[0])
    return convert(network, modalities=2, exchange='depthwise', **options)


def unet(options):
    settings = dict(downs=3, base_channels=4, dropout_ratio=0.0)
    return MODELS.build(
        dict(type='CENUNetGenerator', norm_cfg=dict(type='CENIN', **options), **settings)
    )


CASES = [
    (unet, 'threshold'),
    *(
        pytest.param(*case, marks=pytest.mark.long)
        for case in (
            (efficientnet, 'budget'),
            (cen_resnet, 'threshold'),
            (head, None),
            (converted_resnet, 'budget'),
            (converted_convnext, 'threshold'),
        )
    ),
]


def prepare(network):
    """Scales of which some are small; effects are watched."""
    for norm in network.modules():
        if isinstance(norm, ExchangeNorm):
            nn.init.uniform_(norm.weight, 0.1, 1)
            if norm.bias is not None:
                nn.init.normal_(norm.bias)
            if norm.selection is not None and not isinstance(norm.selection, Fixed):
                assert not norm.exchanges or norm.exchange_mask().any()
            elif norm.selection is not None:
                norm.selection.memory = 5
    return network.to(torch.get_default_dtype())


def inputs_of(make, batch):
    """Images or features of a size of batch that may change."""
    if make is head:
        x = [torch.randn(2 * batch, 6, 8, 8), torch.randn(2 * batch, 8, 4, 4)]
    elif make is unet:
        x = torch.randn(batch, 2, 3, 32, 32)
    else:
        x = torch.randn(2 * batch, 3, 64, 64)
    for part in tensors(x):
        mark_dynamic(part, 0)
    return x


def tensors(value):
    return [value] if isinstance(value, torch.Tensor) else list(value)


def results_of(network, run, x):
    """Outputs, gradients and buffers of a pass forward and backward."""
    network.zero_grad()
    outputs = tensors(run(x))
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(y.shape, generator=generator) for y in outputs]
    sum((y * d).sum() for y, d in zip(outputs, directions, strict=True)).backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    return [y.detach() for y in outputs], gradients, [b.double() for b in network.buffers()]


def assert_equal(found, expected, rtol=1e-4):
    """To the largest value of a group: gradients of biases before a norm are zero but for
    rounding."""
    for ours, stock in zip(found, expected, strict=True):
        assert len(ours) == len(stock)
        scale = max((float(v.abs().max()) for v in stock if v.numel()), default=1.0)
        for one, other in zip(ours, stock, strict=True):
            torch.testing.assert_close(one, other, rtol=rtol, atol=1e-6 * scale)


@pytest.mark.parametrize(
    ('make', 'selection'), CASES, ids=lambda value: getattr(value, '__name__', str(value))
)
def test_one_graph_equals_eager_mode(make, selection):
    network = prepare(make(OPTIONS.get(selection)))
    eager = deepcopy(network)
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(network, backend=counter, fullgraph=True)
    for batch in (2, 3):
        x = inputs_of(make, batch)
        expected = results_of(eager, eager, x)
        assert_equal(results_of(network, compiled, x), expected)
    assert counter.frame_count == 1
    eager.eval()
    network.eval()
    for batch in (2, 3):
        x = inputs_of(make, batch)
        with torch.no_grad():
            assert_equal([tensors(compiled(x))], [tensors(eager(x))])
    assert counter.frame_count == 2


def block(options):
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(True)]
    return convert(nn.Sequential(*layers), modalities=2, **options)


def test_inductor_equals_eager_mode():
    torch.set_default_dtype(torch.float32)
    network = prepare(block(OPTIONS['budget']))
    eager = deepcopy(network)
    compiled = torch.compile(network, backend='inductor', fullgraph=True)
    for batch in (2, 3):
        x = torch.randn(2 * batch, 3, 12, 12)
        mark_dynamic(x, 0)
        assert_equal(results_of(network, compiled, x), results_of(eager, eager, x))


@pytest.mark.long
def test_another_batch_compiles_once_more():
    """Where no dimension is marked, the second size of a batch compiles for all sizes."""
    network = prepare(block(OPTIONS['threshold']))
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(network, backend=counter, fullgraph=True)
    for batch in (2, 3, 4, 5):
        compiled(torch.randn(2 * batch, 3, 12, 12))
    assert counter.frame_count == 2


def test_a_budget_chooses_alike_for_a_compiled_network():
    """Choices are buffers: the graph follows them and is not compiled again."""
    network = prepare(block(OPTIONS['budget']))
    eager = deepcopy(network)
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(network, backend=counter, fullgraph=True)
    schedule = BudgetSchedule(begin=0.0, end=1.0, interval=1)
    budgets = [ExchangeBudget(net, schedule=schedule) for net in (eager, network)]
    masks = []
    for step in range(1, 4):
        for net in (eager, network):
            for norm in net.modules():
                if isinstance(norm, ExchangeNorm):
                    norm.selection.memory = 50
        x = torch.randn(4, 3, 12, 12)
        assert_equal(results_of(network, compiled, x), results_of(eager, eager, x))
        for budget in budgets:
            budget.step(step, 4)
        masks.append([norm.exchange_mask().clone() for norm in budgets[1].norms])
        for norm, mask in zip(budgets[0].norms, masks[-1], strict=True):
            assert torch.equal(norm.exchange_mask(), mask)
    assert not all(torch.equal(*pair) for pair in zip(masks[0], masks[-1], strict=True))
    assert counter.frame_count == 1


@pytest.mark.parametrize('kind', list(KINDS))
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('part', [False, True])
def test_paths_of_compiled_norms(kind, training, part, monkeypatch):
    """Every kind of norm takes in eager mode the path that is compiled, also a part of a grid."""
    grid = StreamGrid(1, 3)
    layer = ExchangeNorm(KINDS[kind][0](), grid, selection=make_selection(grid, C, threshold=0.5))
    nn.init.uniform_(layer.weight, 0.1, 1)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    layer.to(torch.float64).train(training)
    _, shape, _, arguments = KINDS[kind]
    streams = [0, 2] if part else [0, 1, 2]
    x = torch.randn(2 * len(streams), *shape)
    found = []
    with grid.only(modalities=streams):
        for compiling in (False, True):
            monkeypatch.setattr(torch.compiler, 'is_compiling', lambda value=compiling: value)
            own, y = deepcopy(layer), x.clone().requires_grad_()
            for _ in range(2):
                outputs, gradients, buffers = results_of(
                    own, lambda z, own=own: own(z, **arguments), y
                )
            found.append((outputs, [*gradients, y.grad], buffers))
    assert_equal(*found, rtol=1e-8)


def test_effects_of_a_compiled_norm(monkeypatch):
    """The functional exchange measures what the one in place does."""
    grid = StreamGrid(2, 3)
    layer = ExchangeNorm(nn.BatchNorm2d(9), grid, selection=make_selection(grid, 9, budget=0.2))
    layer.selection.memory = 3
    x = torch.randn(12, 9, 4, 5)
    found = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, 'is_compiling', lambda value=compiling: value)
        own = deepcopy(layer)
        results_of(own, own, x)
        found.append(own.selection.effects)
    torch.testing.assert_close(*found)
    assert found[0].any()
