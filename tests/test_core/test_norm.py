"""Every kind of norm against lists of stock norms and the exchange by loops, with gradients."""

from copy import deepcopy

import pytest
import timm.layers as of_timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.model import revert_sync_batchnorm
from torch import nn
from torchvision.models.convnext import LayerNorm2d

from mmcen.core import ExchangeNorm, Fixed, StreamGrid, Threshold
from mmcen.core.selection import make_selection
from tests.oracle import exchange as exchange_by_loops

C, THRESHOLD = 6, 0.5
SPACE = {1: (7,), 2: (3, 5), 3: (2, 3, 4)}


class LayerNormOfTwoLayouts(nn.LayerNorm):
    """As mmpretrain's LN2d: each call says where the channels are."""

    def forward(self, x, data_format='channel_first'):
        if data_format == 'channel_last':
            return super().forward(x)
        return super().forward(x.movedim(1, -1)).movedim(-1, 1).contiguous()


# norm, shape behind the batch, where its channels are, arguments of the call
KINDS = {
    'BatchNorm1d of vectors': (lambda: nn.BatchNorm1d(C), (C,), 1, {}),
    **{
        cls.__name__: (lambda cls=cls: cls(C), (C, *SPACE[n]), 1, {})
        for n, kinds in enumerate(
            (
                (nn.BatchNorm1d, nn.InstanceNorm1d),
                (nn.BatchNorm2d, nn.InstanceNorm2d),
                (nn.BatchNorm3d, nn.InstanceNorm3d),
            ),
            1,
        )
        for cls in kinds
    },
    'SyncBatchNorm': (lambda: nn.SyncBatchNorm(C), (C, 3, 5), 1, {}),
    # what mmengine's runner makes of it in a single process
    'SyncBatchNorm, reverted': (
        lambda: revert_sync_batchnorm(nn.SyncBatchNorm(C)),
        (C, 3, 5),
        1,
        {},
    ),
    'BatchNorm2d, cumulative': (lambda: nn.BatchNorm2d(C, momentum=None), (C, 3, 5), 1, {}),
    'BatchNorm2d, untracked': (
        lambda: nn.BatchNorm2d(C, track_running_stats=False),
        (C, 3, 5),
        1,
        {},
    ),
    'InstanceNorm2d, tracked': (
        lambda: nn.InstanceNorm2d(C, affine=True, track_running_stats=True),
        (C, 3, 5),
        1,
        {},
    ),
    'GroupNorm': (lambda: nn.GroupNorm(2, C), (C, 3, 5), 1, {}),
    'LayerNorm of tokens': (lambda: nn.LayerNorm(C), (7, C), -1, {}),
    'LayerNorm, channels last': (lambda: nn.LayerNorm(C, bias=False), (3, 5, C), -1, {}),
    'LayerNorm2d of timm': (lambda: of_timm.LayerNorm2d(C), (C, 3, 5), 1, {}),
    'LayerNorm2d of torchvision': (lambda: LayerNorm2d(C), (C, 3, 5), 1, {}),
    'two layouts, first': (lambda: LayerNormOfTwoLayouts(C), (C, 3, 5), 1, {}),
    'two layouts, last': (
        lambda: LayerNormOfTwoLayouts(C),
        (3, 5, C),
        -1,
        {'data_format': 'channel_last'},
    ),
    'RMSNorm': (lambda: nn.RMSNorm(C), (7, C), -1, {}),
    'RmsNorm of timm': (lambda: of_timm.RmsNorm(C), (7, C), -1, {}),
    'BatchNormAct2d': (lambda: of_timm.BatchNormAct2d(C), (C, 3, 5), 1, {}),
    'GroupNormAct': (lambda: of_timm.GroupNormAct(C, num_groups=2), (C, 3, 5), 1, {}),
    'LayerNormAct2d': (lambda: of_timm.LayerNormAct2d(C), (C, 3, 5), 1, {}),
}


def make_pair(kind, tasks, modalities, axis):
    """The layer and a list of stock norms with the same random values, about half of them small."""
    grid = StreamGrid(tasks, modalities)
    layer = ExchangeNorm(
        KINDS[kind][0](), grid, axis, Threshold(grid, C, axis, threshold=THRESHOLD)
    )
    with torch.no_grad():
        for value in layer.norm.state_dict().values():
            if value.dim():
                value.uniform_(0.05, 1)
    stocks = []
    for stream in range(grid.size):
        stock = KINDS[kind][0]()
        if isinstance(stock, nn.modules.instancenorm._InstanceNorm) and stock.weight is None:
            stock = type(stock)(C, affine=True)
        state = {
            key: value[stream * C : (stream + 1) * C] if value.dim() else value
            for key, value in layer.norm.state_dict().items()
        }
        stock.load_state_dict(state)
        stocks.append(stock)
    return layer, stocks


def expected_of(layer, stocks, x, channel_dim, arguments):
    """Streams (T*M of (B, ...)) through stock norms, exchanged by loops, then activated."""
    tasks, modalities = layer.grid.shape
    after = []
    plain = []
    for stock, part in zip(stocks, x, strict=True):
        act = getattr(stock, 'act', None)
        if act is not None:
            after.append(act)
            stock.act = nn.Identity()
        plain.append(stock(part, **arguments).movedim(channel_dim, 1))
        if act is not None:
            stock.act = act
    rows = [plain[t * modalities : (t + 1) * modalities] for t in range(tasks)]
    gammas = [list(row) for row in layer.gamma().detach()]
    rows = exchange_by_loops(rows, gammas, layer.axis, THRESHOLD)
    flat = [y.movedim(1, channel_dim) for row in rows for y in row]
    return [act(y) for act, y in zip(after, flat, strict=True)] if after else flat


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('kind', KINDS)
@settings(max_examples=10, deadline=None)
@given(
    tasks=st.integers(1, 2),
    modalities=st.integers(1, 3),
    axis=st.sampled_from(['tasks', 'modalities']),
    samples=st.integers(1, 3),
    seed=st.integers(0, 100),
)
def test_equals_stock_norms_and_the_oracle(kind, training, tasks, modalities, axis, samples, seed):
    torch.manual_seed(seed)
    _, shape, channel_dim, arguments = KINDS[kind]
    if kind == 'BatchNorm1d of vectors':
        samples += 1  # of one value there is no variance
    layer, stocks = make_pair(kind, tasks, modalities, axis)
    for module in (layer, *stocks):
        module.train(training)
    ours = torch.randn(tasks * modalities * samples, *shape, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    y = layer(ours, **arguments)
    expected = torch.cat(
        expected_of(layer, stocks, theirs.chunk(len(stocks)), channel_dim, arguments)
    )
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    direction = torch.randn_like(y)
    (y * direction).sum().backward()
    (expected * direction).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)
    for name in ('weight', 'bias'):
        own = getattr(layer.norm, name, None)
        if own is not None:
            grads = [getattr(stock, name).grad for stock in stocks]
            parts = [torch.zeros(C) if g is None else g for g in grads]
            torch.testing.assert_close(own.grad, torch.cat(parts), rtol=1e-4, atol=1e-4)
    for name, own in layer.norm.named_buffers():
        if own.dim():
            theirs = torch.cat([getattr(stock, name) for stock in stocks])
            torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('kind', ['BatchNorm2d', 'InstanceNorm2d', 'GroupNorm'])
@pytest.mark.parametrize('training', [True, False])
def test_channels_last_is_kept_and_may_be_activated_in_place(kind, training):
    torch.manual_seed(0)
    layer, _ = make_pair(kind, 1, 2, 'modalities')
    layer.train(training)
    x = torch.randn(4, C, 3, 5)
    last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    again = deepcopy(layer)
    y = nn.functional.relu(layer(last), inplace=True)
    assert y.is_contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    expected = again(x).relu()
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    y.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(last.grad, x.grad, rtol=1e-4, atol=1e-5)


def test_effects_are_exact_where_the_loss_is_linear_in_the_mask():
    """First-order effects, as the budget measures them, against two passes for each channel."""
    torch.manual_seed(0)
    grid = StreamGrid(1, 3)
    layer = ExchangeNorm(nn.BatchNorm2d(9), grid, selection=make_selection(grid, 9, budget=0.2))
    budget = layer.selection
    budget.memory = 1
    x, direction = torch.randn(6, 9, 4, 5), torch.randn(6, 9, 4, 5)
    (layer(x) * direction).sum().backward()
    found, start = budget.effects[0].clone(), budget.chosen.clone()
    assert (budget.effects[1] == found.square()).all()
    budget.memory = None

    def loss(place, replaced):
        budget.chosen.copy_(start)
        budget.chosen[place] = replaced
        with torch.no_grad():
            return float((layer(x) * direction).sum())

    for place in map(tuple, budget.exchangeable.nonzero().tolist()):
        wanted = loss(place, True) - loss(place, False)
        assert float(found[place]) == pytest.approx(wanted, rel=1e-3, abs=1e-3)
    assert not found[~budget.exchangeable].any()


@pytest.mark.parametrize('kind', ['BatchNorm2d', 'LayerNorm of tokens', 'InstanceNorm2d'])
def test_a_mask_of_the_streams_that_are_present(kind):
    torch.manual_seed(0)
    layer, stocks = make_pair(kind, 2, 3, 'modalities')
    layer.eval()
    [stock.eval() for stock in stocks]
    _, shape, channel_dim, _ = KINDS[kind]
    with layer.grid.only(tasks=[1], modalities=[0, 2]):
        x = torch.randn(2 * 2, *shape)
        y = layer(x)
        bounds = [0, 2, 4, 6]
        plain = [
            stocks[3 + m](part).movedim(channel_dim, 1)
            for m, part in zip((0, 2), x.chunk(2), strict=True)
        ]
        gamma = layer.gamma()[1]
        for i, (m, own, other) in enumerate(((0, 0, 1), (2, 1, 0))):
            for c in range(C):
                mine = bounds[m] <= c < bounds[m + 1] and gamma[m, c].abs() < THRESHOLD
                found = y.chunk(2)[i].movedim(channel_dim, 1)[:, c]
                torch.testing.assert_close(found, plain[other if mine else own][:, c])


def test_fixed_channels_are_a_share_of_all():
    fixed = Fixed(StreamGrid(1, 2), 20, share=0.3)
    assert fixed.mask(torch.ones(1, 2, 20)).sum(-1).tolist() == [[6, 6]]


@pytest.mark.parametrize('present', [(0, 2), (1,)])
def test_synchronised_norms_train_a_part_of_the_streams(monkeypatch, present):
    """As batch norms: without other processes torch's layer takes the statistics of this one."""
    monkeypatch.setattr('mmcen.core.kernels.batch_norm._is_distributed', lambda: True)
    found = []
    for kind in (nn.SyncBatchNorm, nn.BatchNorm2d):
        torch.manual_seed(0)
        grid = StreamGrid(1, 3)
        layer = ExchangeNorm(kind(C), grid, 'modalities', Fixed(grid, C, 'modalities'))
        with torch.no_grad():
            layer.norm.weight.uniform_(0.05, 1)
        x = torch.rand(2 * len(present), C, 3, 5, requires_grad=True)
        with grid.only(modalities=present):
            y = layer(x)
        y.square().sum().backward()
        state = layer.state_dict()
        assert not torch.equal(state['norm.running_mean'], torch.zeros(3 * C))
        found.append({'y': y, 'x': x.grad, 'weight': layer.norm.weight.grad, **state})
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], msg=name)
