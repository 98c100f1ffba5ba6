"""ExchangeNorm against the list-of-streams oracle: outputs, gradients, statistics, layouts,
precisions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.cnn import build_norm_layer
from mmengine.model import constant_init
from torch import nn

from mmcen.layers import CENBN, CENIN, CENSyncBN
from tests.oracle import StreamNorms, exchange

THRESHOLD = 0.05


def make_pair(cls, tasks, modalities, channels, axis, region, mode, seed=0):
    """The layer and the oracle with the same random state; about half of the gammas are below
    threshold."""
    torch.manual_seed(seed)
    layer = cls(
        channels, modalities, tasks, axis=axis, threshold=THRESHOLD, region=region, eps=1e-5
    )
    stock = layer.norm
    size = stock.weight.numel()
    with torch.no_grad():
        small = torch.rand(size) < 0.5
        stock.weight.copy_(torch.randn(size).sign() * torch.where(small, 0.01, 0.8))
        stock.bias.copy_(torch.randn(size))
        if stock.running_mean is not None:
            stock.running_mean.copy_(torch.randn(size))
            stock.running_var.copy_(torch.rand(size) + 0.5)

    def make():
        if isinstance(layer, CENIN):
            return nn.InstanceNorm2d(channels, affine=True)
        return nn.BatchNorm2d(channels)

    oracle = StreamNorms(make, tasks, modalities, axis, THRESHOLD, region)
    for s, norm in enumerate(n for row in oracle.norms for n in row):
        state = {
            k: v[s * channels : (s + 1) * channels] if v.dim() else v
            for k, v in stock.state_dict().items()
        }
        norm.load_state_dict(state)
    for model in (layer, oracle):
        model.train(mode == 'train')
    if mode == 'frozen':  # norm_eval: the model trains, the norms stay in eval mode
        layer.train()
        layer.norm.eval()
    return layer, oracle


def run_both(layer, oracle, x):
    """Outputs and input gradients of both, as (B, T, M, C, H, W)."""
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = layer.grid.unfold(layer(layer.grid.fold(ours)))
    rows = oracle([[theirs[:, t, m] for m in range(x.shape[2])] for t in range(x.shape[1])])
    expected = torch.stack([torch.stack(row, 1) for row in rows], 1)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (y * direction).sum().backward()
    (expected * direction).sum().backward()
    return y, expected, ours.grad, theirs.grad


@pytest.mark.parametrize('mode', ['train', 'eval', 'frozen'])
@pytest.mark.parametrize('cls', [CENBN, CENSyncBN, CENIN])
@settings(max_examples=25, deadline=None)
@given(
    tasks=st.integers(1, 3),
    modalities=st.integers(1, 4),
    channels=st.integers(4, 9),
    axis=st.sampled_from(['tasks', 'modalities']),
    region=st.sampled_from(['disjoint', 'all']),
    seed=st.integers(0, 1000),
)
def test_equals_oracle(cls, mode, tasks, modalities, channels, axis, region, seed):
    layer, oracle = make_pair(cls, tasks, modalities, channels, axis, region, mode, seed)
    x = torch.randn(2, tasks, modalities, channels, 3, 5)
    y, expected, grad, expected_grad = run_both(layer, oracle, x)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-5)
    norms = [norm for row in oracle.norms for norm in row]
    for name, ours in layer.norm.named_parameters():
        # a stream whose channels are all replaced has no gradient at all in the oracle
        grads = [(p.grad, p) for p in (getattr(norm, name) for norm in norms)]
        theirs = torch.cat([torch.zeros_like(p) if g is None else g for g, p in grads])
        torch.testing.assert_close(ours.grad, theirs, rtol=1e-4, atol=1e-4)
    for name, ours in layer.norm.named_buffers():
        if ours.dim():
            theirs = torch.cat([getattr(norm, name) for norm in norms])
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize('mode', ['train', 'frozen'])
@pytest.mark.parametrize('cls', [CENBN, CENIN])
@pytest.mark.parametrize('modalities', [1, 2, 3, 4])
def test_channels_last(cls, mode, modalities):
    layer, oracle = make_pair(cls, 1, modalities, 7, 'modalities', 'disjoint', mode)
    x = torch.randn(2, 1, modalities, 7, 4, 6)
    y = layer(layer.grid.fold(x).contiguous(memory_format=torch.channels_last))
    expected = layer.grid.fold(run_both(layer, oracle, x)[1])
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('mode', ['train', 'frozen'])
@pytest.mark.parametrize('modalities', [2, 3])
def test_bfloat16(modalities, mode, layout):
    layer, oracle = make_pair(CENBN, 1, modalities, 6, 'modalities', 'disjoint', mode)
    with torch.no_grad():  # a mean far from zero, where low precision would cancel
        layer.norm.running_mean.fill_(20.0)
        for norm in oracle.norms[0]:
            norm.running_mean.fill_(20.0)
    x = (torch.randn(4, 1, modalities, 6, 8, 8) + 20).bfloat16()
    y = layer(layer.grid.fold(x).contiguous(memory_format=layout))
    expected = layer.grid.fold(run_both(layer, oracle, x.float())[1])
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=2e-2, atol=2e-2)


def test_two_streams_swap_exactly():
    layer = CENBN(4, modalities=2, threshold=THRESHOLD)
    with torch.no_grad():
        layer.norm.weight.copy_(torch.tensor([0.01, -0.01, 0.01, 1, 1, 1, 0.01, 1]))
    y = layer(torch.randn(4, 4, 3, 3)).view(2, 2, 4, 3, 3)  # (M, B, C, H, W)
    assert torch.equal(y[0, :, :2], y[1, :, :2])  # both of stream 0's own half are replaced
    assert torch.equal(y[1, :, 2], y[0, :, 2])
    # stream 0 may not exchange channel 2, though its gamma is small
    assert layer.exchange_mask().tolist() == [
        [[True, True, False, False], [False, False, True, False]]
    ]


def test_gradient_is_cut_from_the_replaced_channel():
    layer = CENBN(2, modalities=2, threshold=THRESHOLD)
    with torch.no_grad():
        layer.norm.weight.copy_(torch.tensor([0.0, 1, 1, 1]))
    x = torch.randn(2, 2, 3, 3, requires_grad=True)
    layer(x)[0].mul(torch.randn(2, 3, 3)).sum().backward()  # a loss on stream 0 alone
    assert x.grad[0, 0].abs().sum() == 0
    assert x.grad[1, 0].abs().sum() > 0
    assert x.grad[1, 1].abs().sum() == 0


def test_told_not_to_exchange():
    layer, _ = make_pair(CENBN, 1, 2, 6, 'modalities', 'disjoint', 'eval')
    x = torch.randn(4, 6, 3, 3)
    assert layer.exchange_mask().any()
    streams = layer.norm(x.view(2, 2, 6, 3, 3).transpose(0, 1).reshape(2, 12, 3, 3))
    plain = streams.view(2, 2, 6, 3, 3).transpose(0, 1).reshape(4, 6, 3, 3)
    assert not torch.equal(layer(x), plain)
    layer.exchange = False
    assert torch.equal(layer(x), plain)
    assert not layer.exchange_mask().any()
    assert not layer.exchanges
    layer.exchange, layer.selection.threshold = True, 0.0  # penalised, but never replaced
    assert torch.equal(layer(x), plain)
    assert layer.exchanges


@pytest.mark.parametrize('penalty, expected', [('disjoint', 6), ('all', 12)])
@pytest.mark.parametrize('region, replaced', [('disjoint', 6), ('all', 12)])
def test_regions_of_exchange_and_penalty(region, replaced, penalty, expected):
    """The paper has both disjoint, the official code exchanges everywhere and penalises the
    disjoint parts."""
    layer = CENBN(6, modalities=2, region=region, penalty_region=penalty)
    nn.init.zeros_(layer.weight)
    assert layer.exchange_mask().sum() == replaced
    assert layer.penalised.sum() == expected


@pytest.mark.parametrize('name', ['CENBN', 'CENSyncBN', 'CENIN'])
@pytest.mark.parametrize('requires_grad', [True, False])
def test_is_a_norm_type_of_the_registry(name, requires_grad):
    cfg = {'type': name, 'modalities': 3, 'requires_grad': requires_grad, 'eps': 1e-3}
    attribute, layer = build_norm_layer(cfg, 8, postfix=2)
    assert attribute == ('in2' if name == 'CENIN' else 'bn2')
    assert layer.norm.num_features == 24
    assert layer.norm.eps == 1e-3
    assert all(p.requires_grad is requires_grad for p in layer.parameters())
    constant_init(layer, val=0.5)  # what mmseg's blocks do by layer name
    assert (layer.norm.weight == 0.5).all()


def test_a_layer_norm_of_the_registry():
    cfg = {'type': 'CENLN', 'modalities': 2, 'eps': 1e-3, 'threshold': THRESHOLD}
    attribute, layer = build_norm_layer(cfg, 6, postfix=1)
    assert attribute == 'ln1'
    with torch.no_grad():
        layer.weight.copy_(torch.randn(12).sign() * torch.where(torch.rand(12) < 0.5, 0.01, 0.8))
        layer.bias.normal_()
    oracle = StreamNorms(
        lambda: nn.LayerNorm(6, eps=1e-3), 1, 2, 'modalities', THRESHOLD, 'disjoint'
    )
    for m, norm in enumerate(oracle.norms[0]):
        norm.load_state_dict({k: v.chunk(2)[m] for k, v in layer.norm.state_dict().items()})
    tokens = torch.randn(2, 3, 5, 6)  # (M, B, N, C)
    gammas = [norm.weight for norm in oracle.norms[0]]
    plain = [norm(x).movedim(-1, 1) for norm, x in zip(oracle.norms[0], tokens, strict=True)]
    expected = exchange([plain], [gammas], 'modalities', THRESHOLD)[0]
    assert layer.exchange_mask().any()
    found = layer(tokens.flatten(0, 1))
    torch.testing.assert_close(found, torch.cat([y.movedim(1, -1) for y in expected]))


@pytest.mark.parametrize('tasks, modalities', [(1, 1), (1, 3), (2, 2)])
def test_loads_one_stream_into_all(tasks, modalities):
    stock = nn.BatchNorm2d(5)
    nn.init.normal_(stock.weight)
    stock.running_mean.normal_()
    layer = CENBN(5, modalities, tasks, exchange=False).eval()
    layer.load_state_dict(stock.state_dict())
    x = torch.randn(layer.grid.size * 2, 5, 3, 3)
    torch.testing.assert_close(layer(x), stock.eval()(x))
    again = CENBN(5, modalities, tasks, exchange=False)
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again.norm.running_mean, layer.norm.running_mean)


def test_checkpoint_of_another_number_of_streams():
    with pytest.raises(
        ValueError, match=r'norm.weight has 15 values, the model needs 5 .* or 2 x 5 \(2 streams\)'
    ):
        CENBN(5, modalities=2).load_state_dict(CENBN(5, modalities=3).state_dict())


@pytest.mark.parametrize(
    'call, message',
    [
        (
            lambda: CENBN(4, modalities=2)(torch.zeros(5, 4, 2, 2)),
            'batch 5 is not divisible by 2 streams: stack the modalities first',
        ),
        (
            lambda: CENBN(4)(torch.zeros(2, 3, 2, 2)),
            r'expected 4 channels in dimension 1 of \(T\*M\*B, ...\), got \(2, 3, 2, 2\)',
        ),
        (lambda: CENBN(1, modalities=2), '1 channels cannot be divided into 2 sub-parts'),
        (lambda: CENBN(4, modalities=0), 'modalities must be a positive integer, got 0'),
        (lambda: CENBN(4, modalities=2, axis='time'), "axis must be one of .*, got 'time'"),
        (lambda: CENBN(4, modalities=2, region='half'), "region must be one of .*, got 'half'"),
        (lambda: CENBN(4, threshold=-1), 'threshold must not be negative, got -1'),
        (lambda: CENIN(4, affine=False), 'affine=False leaves no scaling factor'),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
