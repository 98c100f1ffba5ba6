"""The fusion baselines, against loops over streams."""

import pytest
import torch
from torch import nn

from mmcen.core.grid import StreamGrid
from projects.paper.rivals import (
    AlignFusion,
    AverageFusion,
    CBNFusion,
    ConcatFusion,
    SelfAttentionFusion,
)
from projects.paper.rivals.fusion import fusion_losses
from projects.paper.rivals.fusion.align import discrepancy
from projects.paper.rivals.private_convs import unshare

C = 8


def of_list(layer, own, others):
    """What one stream becomes; all (B, C, H, W)."""
    if isinstance(layer, AverageFusion):
        return sum([own, *others]) / (1 + len(others))
    stacked = torch.cat([own, *others], 1)
    if isinstance(layer, ConcatFusion):
        return nn.functional.conv2d(stacked, layer.conv.weight, layer.conv.bias)
    gate = layer.excite(nn.functional.relu(layer.squeeze(stacked)))
    return layer.reduce(torch.sigmoid(gate) * stacked)


@pytest.mark.parametrize('tasks', [1, 2])
@pytest.mark.parametrize('count', [2, 3])
@pytest.mark.parametrize('kind', [ConcatFusion, AverageFusion, SelfAttentionFusion])
def test_every_stream_is_fused_with_the_others(kind, count, tasks):
    torch.manual_seed(0)
    grid = StreamGrid(tasks, count)
    layer = kind(C, grid)
    x = torch.randn(2, tasks, count, C, 5, 4)
    y = grid.unfold(layer(grid.fold(x)))
    for t in range(tasks):
        for m in range(count):
            others = [x[:, t, (m + k) % count] for k in range(1, count)]
            torch.testing.assert_close(y[:, t, m], of_list(layer, x[:, t, m], others))


@pytest.mark.parametrize('kind', [ConcatFusion, AverageFusion, SelfAttentionFusion, CBNFusion])
def test_merging_leaves_the_first_stream(kind):
    torch.manual_seed(0)
    grid = StreamGrid(1, 3)
    halfway, last = kind(C, grid, merge=True, last=False), kind(C, grid, merge=True)
    last.load_state_dict(halfway.state_dict())
    x = torch.randn(2, 1, 3, C, 5, 4)
    y = grid.unfold(halfway(grid.fold(x)))
    assert torch.equal(y[:, :, 1:], x[:, :, 1:])
    assert not torch.equal(y[:, :, 0], x[:, :, 0])
    torch.testing.assert_close(last(grid.fold(x)), y[:, 0, 0])


@pytest.mark.parametrize('merge', [True, False])
@pytest.mark.parametrize('kind', [ConcatFusion, SelfAttentionFusion])
def test_identity_starts_as_the_streams_own_features_and_then_listens(kind, merge):
    torch.manual_seed(0)
    grid = StreamGrid(2, 3)
    layer = kind(C, grid, merge=merge, identity=True)
    x = torch.randn(2, 2, 3, C, 5, 4)
    own = x[:, :, :1] if merge else x
    out_grid = StreamGrid(*own.shape[1:3])
    y = layer(grid.fold(x))
    torch.testing.assert_close(y, out_grid.fold(own))
    y.square().sum().backward()
    torch.optim.SGD(layer.parameters(), lr=1e-3).step()
    other = x.clone()
    other[:, :, 1] += 1
    with torch.no_grad():
        after = [out_grid.unfold(layer(grid.fold(z)))[:, :, 0] for z in (x, other)]
    assert (after[0] - after[1]).abs().mean() > 1e-3


def test_conditional_norms_start_as_private_norms_and_then_listen():
    torch.manual_seed(0)
    grid = StreamGrid(1, 2)
    layer = CBNFusion(C, grid)
    x = torch.randn(6, 1, 2, C, 5, 4)
    alone = torch.stack([nn.BatchNorm2d(C)(x[:, 0, m]) for m in range(2)], 1)
    torch.testing.assert_close(grid.unfold(layer(grid.fold(x)))[:, 0], alone)
    nn.init.normal_(layer.change.weight)
    y = grid.unfold(layer(grid.fold(x)))[:, 0]
    for m in range(2):
        pooled = x[:, 0, 1 - m].mean((2, 3))
        change = layer.change(nn.functional.relu(layer.hidden(pooled)))
        gamma, beta = change[:, :C, None, None], change[:, C:, None, None]
        torch.testing.assert_close(y[:, m], alone[:, m] * (1 + gamma) + beta)


def kernel_loop(a, b):
    width = torch.stack([(x - y).square().sum() for x in (*a, *b) for y in (*a, *b)]).mean()

    def mean(xs, ys):
        values = [
            torch.exp(-(x - y).square().sum() / (width * 2.0**p))
            for x in xs
            for y in ys
            for p in range(-5, 6)
        ]
        return torch.stack(values).mean()

    return mean(a, a) + mean(b, b) - 2 * mean(a, b)


def test_discrepancy_of_eleven_kernels():
    torch.manual_seed(0)
    a, b = torch.randn(5, 3), torch.randn(5, 3) + 1
    torch.testing.assert_close(discrepancy(a, b), kernel_loop(a, b))
    assert discrepancy(a, a) == 0


def test_alignment_draws_streams_together():
    torch.manual_seed(0)
    grid = StreamGrid(1, 2)
    layer = AlignFusion(C, grid)
    x = torch.randn(4, 1, 2, C, 8, 8)
    x[:, :, 1] += 2
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
    seen = []
    for _ in range(40):
        y = layer(grid.fold(x))
        assert y.shape == (8, C, 8, 8)
        (loss,) = fusion_losses(nn.Sequential(layer)).values()
        seen.append(float(loss))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert seen[-1] < 0.3 * seen[0]
    layer.eval()(grid.fold(x))
    assert fusion_losses(layer) == {}


def test_errors():
    with pytest.raises(ValueError, match='ConcatFusion fuses two modalities or more, there is 1'):
        ConcatFusion(C, StreamGrid())
    with pytest.raises(ValueError, match="AlignFusion keeps all streams: .* convs='private'"):
        AlignFusion(C, StreamGrid(1, 2), merge=True)


def test_convolutions_of_each_streams_own():
    torch.manual_seed(0)
    shared = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 2, 1)))
    saved = shared.state_dict()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 2, 1)))
    unshare(model, StreamGrid(1, 2))
    first, second = model[0].copies
    assert not torch.equal(first.weight, second.weight)
    x = torch.randn(2, 3, 3, 6, 6)  # two streams
    y = model(x.flatten(0, 1)).unflatten(0, (2, 3))
    for m in range(2):
        middle = model[0].copies[m](x[m]).relu()
        torch.testing.assert_close(y[m], model[2][0].copies[m](middle))
    model.load_state_dict(saved)  # as one network's, ImageNet's perhaps
    torch.testing.assert_close(model(x.flatten(0, 1)), shared(x.flatten(0, 1)))
