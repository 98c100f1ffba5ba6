"""On a GPU: results equal the CPU's, in every mode of training, and no step waits for the device.

``pytest -m gpu --gpu-tests-on cpu`` rehearses them on a CPU.
"""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

from mmcen.budget import BudgetSchedule, ExchangeBudget
from mmcen.core import ExchangeNorm, convert, exchange_norms
from projects.paper.gpu.waits import count_waits

pytestmark = pytest.mark.gpu
CONFIGS = Path(__file__).parents[1] / 'configs' / 'cen'
SELECTIONS = {
    'threshold': dict(threshold=0.5),
    'all channels': dict(threshold=0.5, region='all'),
    'budget': dict(budget=0.3),
}
SIZE = 64


@pytest.fixture
def device(request):
    name = request.config.getoption('--gpu-tests-on')
    if name == 'cuda' and not torch.cuda.is_available():
        pytest.skip('no GPU')
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield name
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32


@pytest.fixture
def cuda(device):
    if device != 'cuda':
        pytest.skip('there is none of it on a CPU')
    return device


def network(options, norm=nn.BatchNorm2d):
    """Convolutions and norms of two streams, some of whose channels are exchanged."""
    layers = []
    for before, after in ((3, 16), (16, 24)):
        layers += [nn.Conv2d(before, after, 3, padding=1), norm(after), nn.ReLU()]
    converted = convert(nn.Sequential(*layers), modalities=2, **options)
    for _, layer in exchange_norms(converted):
        nn.init.uniform_(layer.norm.weight, 0.1, 1)
        nn.init.normal_(layer.norm.bias)
        if 'budget' in options:
            layer.selection.memory = 5
        assert layer.exchange_mask().any()
    return converted


def results_of(model, x):
    """Outputs, gradients and buffers of a pass forward and backward, on the CPU."""
    y = model(x)
    direction = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape)
    model.zero_grad()
    (y * direction.to(y)).sum().backward()
    found = [y, *(p.grad for p in model.parameters()), *model.buffers()]
    return [value.detach().cpu().double() for value in found]


def assert_close(found, expected, tolerance):
    """To the largest value of each tensor."""
    for one, other in zip(found, expected, strict=True):
        scale = max(1.0, float(other.abs().max()))
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('selection', SELECTIONS)
def test_forward_backward_and_exchange_equal_the_cpu(selection, layout, device):
    model = network(SELECTIONS[selection]).double()
    x = torch.randn(4, 3, 10, 12, dtype=torch.float64)
    there = deepcopy(model).to(device, memory_format=layout)
    expected = results_of(model, x)
    found = results_of(there, x.to(device).contiguous(memory_format=layout))
    assert_close(found, expected, 1e-9)


OTHER_NORMS = {
    'instance': lambda channels: nn.InstanceNorm2d(channels, affine=True),
    'group': lambda channels: nn.GroupNorm(4, channels),
}


@pytest.mark.parametrize('norm', OTHER_NORMS)
def test_other_norms_equal_the_cpu(norm, device):
    model = network(SELECTIONS['threshold'], OTHER_NORMS[norm]).double()
    x = torch.randn(4, 3, 10, 12, dtype=torch.float64)
    assert_close(results_of(deepcopy(model).to(device), x.to(device)), results_of(model, x), 1e-9)


def segmentor(name='nyud_lwrefinenet_efflite0.py'):
    """The config, and its model without ImageNet's weights."""
    cfg = Config.fromfile(CONFIGS / name)
    cfg.model.backbone.init_cfg = None
    cfg.model.decode_head.dropout_ratio = 0
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    model.init_weights()
    return cfg, model


def batch_on(device, dtype=torch.float32):
    """Two frames with their labels."""
    generator = torch.Generator().manual_seed(0)
    rgb = 255 * torch.rand(2, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)
    depth = 10 * torch.rand(2, 1, SIZE, SIZE, generator=generator, dtype=torch.float64)
    size = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), (SIZE, SIZE))
    samples = []
    for _ in range(2):
        label = torch.randint(40, (1, SIZE, SIZE), generator=generator).to(device)
        samples.append(SegDataSample(metainfo=size, gt_sem_seg=PixelData(data=label)))
    inputs = {'rgb': list(rgb.to(device, dtype)), 'depth': list(depth.to(device, dtype))}
    return {'inputs': inputs, 'data_samples': samples}


def loss_of(model, data):
    values = model(**model.data_preprocessor(data, True), mode='loss')
    return sum(value for key, value in values.items() if 'loss' in key)


def test_a_segmentor_equals_the_cpu(device):
    model = segmentor()[1].double().train()
    there = deepcopy(model).to(device, memory_format=torch.channels_last)
    losses, gradients = [], []
    for net, place in ((model, 'cpu'), (there, device)):
        loss = loss_of(net, batch_on(place, torch.float64))
        loss.backward()
        losses.append(loss.item())
        parameters = [p for p in net.parameters() if p.grad is not None]
        gradients.append(torch.cat([p.grad.cpu().flatten() for p in parameters]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    assert_close(gradients[1:], gradients[:1], 1e-6)


def train(model, wrapper, device, steps, budget=None, start=0, total=6):
    data = batch_on(device)
    losses = []
    for step in range(start, start + steps):
        losses.append(model.train_step(deepcopy(data), wrapper)['loss'].item())
        if budget is not None:
            budget.step(step + 1, total)
    return losses


def trained(device, precision, steps=3):
    """Losses of a training at a precision, and whether the penalty pulled."""
    cfg, model = segmentor()
    cfg.optim_wrapper.update(precision)
    model = model.to(device, memory_format=torch.channels_last).train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    hook = HOOKS.build(dict(type='SparsityHook', coefficient=0.5))
    hook.attach(model, wrapper.optimizer)
    before = [n.gamma()[n.penalised].abs().sum().item() for _, n in exchange_norms(model)]
    losses = train(model, wrapper, device, steps)
    after = [n.gamma()[n.penalised].abs().sum().item() for _, n in exchange_norms(model)]
    return losses, sum(after) < sum(before)


@pytest.mark.parametrize(
    'precision',
    [
        dict(type='BFloat16OptimWrapper'),
        dict(type='AmpOptimWrapper', dtype='float16', loss_scale=dict(init_scale=128.0)),
    ],
    ids=lambda value: value['type'],
)
def test_mixed_precision_trains_as_float32(precision, device):
    if precision['type'] == 'AmpOptimWrapper' and device != 'cuda':
        pytest.skip('its loss scaler is for GPUs')
    expected, _ = trained(device, {})
    torch.manual_seed(0)
    losses, pulled = trained(device, precision)
    assert losses[0] == pytest.approx(expected[0], rel=0.05)
    assert all(loss < 1e4 for loss in losses)
    assert pulled


def test_synchronised_norms_of_one_process_are_batch_norms(cuda, tmp_path):
    model = network(SELECTIONS['threshold']).to(cuda)
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(deepcopy(model))
    norms = [m for m in synchronised.modules() if isinstance(m, ExchangeNorm)]
    assert all(isinstance(m.norm, nn.SyncBatchNorm) for m in norms)
    x = torch.randn(4, 3, 10, 12).to(cuda)
    dist.init_process_group('nccl', f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        found = results_of(synchronised, x)
    finally:
        dist.destroy_process_group()
    assert_close(found, results_of(model, x), 1e-4)


def test_a_resumed_training_goes_on_alike(device, tmp_path):
    def begin():
        torch.manual_seed(0)
        cfg, model = segmentor('nyud_lwrefinenet_efflite0_budget.py')
        model = model.to(device).train()
        budget = ExchangeBudget(
            model, memory=3, schedule=BudgetSchedule(begin=0.2, end=0.9, interval=1)
        )
        return model, build_optim_wrapper(model, cfg.optim_wrapper), budget

    model, wrapper, budget = begin()
    budget.start(0, 6)
    train(model, wrapper, device, 3, budget)
    torch.save({'model': model.state_dict(), 'optimizer': wrapper.state_dict()}, tmp_path / 'x.pth')
    expected = train(model, wrapper, device, 3, budget, start=3)
    model, wrapper, budget = begin()
    saved = torch.load(tmp_path / 'x.pth', map_location=device, weights_only=True)
    model.load_state_dict(saved['model'])
    wrapper.load_state_dict(saved['optimizer'])
    budget.start(3, 6)
    found = train(model, wrapper, device, 3, budget, start=3)
    assert found == pytest.approx(expected, rel=0.02)  # sums on a GPU differ


@pytest.mark.parametrize('name', ['', '_budget'])
def test_exchange_never_waits_for_the_device(name, device):
    """Of a step: the network forward and backward, a loss of tensors, penalty and optimizer."""
    counts = {}
    for exchanges in (True, False):
        cfg, model = segmentor(f'nyud_lwrefinenet_efflite0{name}.py')
        model = model.to(device, memory_format=torch.channels_last).train()
        for _, norm in list(exchange_norms(model)):
            norm.exchange = exchanges
        if exchanges and name:
            ExchangeBudget(model).start(0, 100)
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        HOOKS.build(dict(type='SparsityHook', coefficient=1e-3)).attach(model, wrapper.optimizer)
        inputs = model.data_preprocessor(batch_on(device), True)['inputs']

        def step(model=model, wrapper=wrapper, inputs=inputs):
            logits = model(inputs, mode='tensor')
            wrapper.update_params(sum(value.square().mean() for value in logits.values()))

        step()
        step()
        counts[exchanges] = count_waits(step)
        if device == 'cuda':
            torch.cuda.set_sync_debug_mode('error')
            try:
                step()
            finally:
                torch.cuda.set_sync_debug_mode('default')
    assert counts[True] == counts[False]
    if device == 'cuda':
        assert not any(key.startswith('cuda') for key in counts[True]), counts


def test_a_wait_would_be_found(device):
    """The proof can fail: a step that reads a value of the device does wait."""
    x = torch.ones(3, device=device)
    assert count_waits(lambda: x.sum().item())


@pytest.mark.parametrize('selection', ['threshold', 'budget'])
def test_compiled_equals_eager(selection, device):
    torch._dynamo.reset()
    model = network(SELECTIONS[selection]).to(device)
    compiled = deepcopy(model)
    compiled.compile(fullgraph=True)
    x = torch.randn(4, 3, 10, 12).to(device)
    assert_close(results_of(compiled, x), results_of(model, x), 1e-4)
    torch._dynamo.reset()
