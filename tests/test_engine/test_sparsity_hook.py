"""The penalty is applied once per real step, whatever stands between loss and optimizer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from torch import nn

from mmcen.core import exchange_norms
from mmcen.engine import SparsityHook
from mmcen.layers import CENBN

LAMBDA, LR = 0.1, 0.5


class Net(nn.Module):
    """Conv, exchanging norm, conv, private norm, over two folded streams."""

    def __init__(self, frozen=False):
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.norm1 = CENBN(6, modalities=2, threshold=0.05)
        self.conv2 = nn.Conv2d(6, 4, 1)
        self.norm2 = CENBN(4, modalities=2, exchange=False)
        with torch.no_grad():
            self.norm1.weight.uniform_(-1, 1)
        if frozen:
            self.norm1.norm.eval()

    def forward(self, x):
        return self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))


def step(net, optimizer, scaler=None, seed=0):
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    loss = net(x).square().mean() + (net(x) * x[:, :1]).mean()
    optimizer.zero_grad()
    if scaler is None:
        loss.backward()
        optimizer.step()
    else:
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()


def expected_gammas(frozen=False, steps=1):
    """SGD by hand: plain gradient plus lambda * sign(gamma) on each stream's own half."""
    net = Net(frozen)
    for i in range(steps):
        plain = torch.optim.SGD(net.parameters(), lr=LR)
        before = net.norm1.weight.detach().clone()
        step(net, plain, seed=i)
        own = torch.tensor([1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1])
        with torch.no_grad():
            net.norm1.weight.sub_(LR * LAMBDA * before.sign() * own)
    return net


def assert_same(net, expected):
    for (name, ours), theirs in zip(net.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize('frozen', [False, True])
@pytest.mark.parametrize('scaled', [False, True])
@pytest.mark.parametrize('fused', [False, True])
def test_once_per_step(frozen, scaled, fused):
    """Also under a gradient scaler, where a fused optimizer sees scaled gradients."""
    net = Net(frozen)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, fused=fused)
    SparsityHook(LAMBDA).attach(net, optimizer)
    scaler = torch.amp.GradScaler('cpu', init_scale=2.0**12) if scaled else None
    for i in range(3):
        step(net, optimizer, scaler, seed=i)
    assert_same(net, expected_gammas(frozen, steps=3))


@pytest.mark.parametrize('mode', ['subgradient', 'proximal'])
@pytest.mark.parametrize('fused', [False, True])
def test_a_skipped_step_is_not_penalised(fused, mode):
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, fused=fused)
    SparsityHook(LAMBDA, mode).attach(net, optimizer)
    before = net.norm1.weight.detach().clone()
    scaler = torch.amp.GradScaler('cpu')
    scaler.scale(net(torch.randn(4, 3, 5, 5)).sum() * float('inf')).backward()
    scaler.step(optimizer)
    assert torch.equal(net.norm1.weight, before)


@pytest.mark.parametrize('counts', [1, 4])
def test_accumulation_and_clipping(counts):
    """Clipping to zero leaves the penalty alone; four small batches make one step and one
    penalty."""
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    wrapper = OptimWrapper(optimizer, accumulative_counts=counts, clip_grad={'max_norm': 1e-12})
    wrapper.initialize_count_status(net, 0, 8)
    SparsityHook(LAMBDA).attach(net, optimizer)
    before = net.norm1.gamma().detach().clone()
    for _ in range(4):
        with wrapper.optim_context(net):
            loss = net(torch.randn(4, 3, 5, 5)).square().mean()
        wrapper.update_params(loss)
    steps = 4 // counts
    expected = before - steps * LR * LAMBDA * before.sign() * net.norm1.penalised
    torch.testing.assert_close(net.norm1.gamma().detach(), expected, atol=1e-5, rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_proximal(modalities, lr, coefficient):
    norm = CENBN(8, modalities=modalities)
    with torch.no_grad():
        norm.weight.uniform_(-1, 1)
    before = norm.gamma().detach().clone()
    optimizer = torch.optim.SGD(norm.parameters(), lr=lr)
    SparsityHook(coefficient, mode='proximal').attach(norm, optimizer)
    for p in norm.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    shrunk = before.sign() * (before.abs() - lr * coefficient).clamp(min=0)
    expected = torch.where(norm.penalised, shrunk, before)
    torch.testing.assert_close(norm.gamma().detach(), expected)


def test_attaching_again_or_detaching():
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    hook = SparsityHook(LAMBDA)
    hook.attach(net, optimizer)
    hook.attach(net, optimizer)  # a second training in one process: not twice the penalty
    step(net, optimizer)
    assert_same(net, expected_gammas())
    hook.detach()
    other = Net()
    plain = torch.optim.SGD(other.parameters(), lr=LR)
    hook.attach(other, plain)
    hook.detach()
    step(other, plain)
    with pytest.raises(AssertionError):
        assert_same(other, expected_gammas())


def test_several_optimizers():
    net = Net()
    first = torch.optim.SGD(net.norm1.parameters(), lr=LR)
    rest = [p for n, p in net.named_parameters() if not n.startswith('norm1')]
    second = torch.optim.SGD(rest, lr=LR)
    SparsityHook(LAMBDA).attach(net, first, second)
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    (net(x).square().mean() + (net(x) * x[:, :1]).mean()).backward()
    first.step()
    second.step()
    assert_same(net, expected_gammas())


def test_survives_sync_bn_conversion_and_back():
    net = convert_sync_batchnorm(Net(), 'torch')
    assert isinstance(net.norm1.norm, nn.SyncBatchNorm)
    assert len(dict(exchange_norms(net))) == 1
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    SparsityHook(LAMBDA).attach(net, optimizer)
    step(net, optimizer)  # in one process SyncBN is BN
    assert_same(net, expected_gammas())
    back = revert_sync_batchnorm(net)
    assert back.norm1.exchange_mask().shape == (1, 2, 6)


def test_frozen_scales_are_left_alone():
    net = Net()
    net.norm1.weight.requires_grad_(False)
    before = net.norm1.weight.clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    SparsityHook(LAMBDA).attach(net, optimizer)
    step(net, optimizer)
    assert torch.equal(net.norm1.weight, before)


@pytest.mark.parametrize(
    'call, message',
    [
        (lambda: SparsityHook(mode='l1'), "mode must be one of .*, got 'l1'"),
        (lambda: SparsityHook(-1.0), 'coefficient must not be negative, got -1.0'),
        (
            lambda: SparsityHook().attach(
                net := Net(), torch.optim.SGD(net.conv1.parameters(), lr=1)
            ),
            r"scaling factors of 1 exchanging norms are in no optimizer \(first: 'norm1'\)",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
