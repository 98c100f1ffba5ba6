"""The folded U-Net against lists of streams; parameter counts; what users get wrong."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import MODELS
from torch import nn

from mmcen.core import exchange_norms
from mmcen.core.grid import StreamGrid
from mmcen.layers import PerTask
from mmcen.layers.per_task import check_groups
from tests.oracle_unet import ListUNet

CYCLE = [[1, 2], [0, 2], [0, 1]]
GRIDS = {  # T x M: the input of each stream
    '1x2': [[0, 1]],
    '1x4': [[0, 1, 2, 3]],
    '2x1': [[0], [0]],
    '3x1': [[0], [0], [0]],
    '2x2': [[0, 1], [0, 1]],
    '3x2': CYCLE,
}


@pytest.fixture
def double():
    """Sums come out alike in any order, so that the oracle is met closely."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def build(inputs, small=0.0, **kwargs):
    """A small generator; a share of its scales is below the threshold, so that it exchanges."""
    cfg = dict(type='CENUNetGenerator', inputs=inputs, downs=4, base_channels=6, dropout_ratio=0)
    net = MODELS.build(cfg | kwargs)
    with torch.no_grad():
        for norm in (m for m in net.modules() if hasattr(m, 'exchange_mask')):
            gamma = 0.5 + torch.rand_like(norm.weight)
            norm.weight.copy_(torch.where(torch.rand_like(gamma) < small, gamma * 5e-3, gamma))
            norm.bias.normal_()
    return net


def compare(net, encoder, decoder):
    """Outputs and gradients of inputs, of every weight and of every scale."""
    oracle = ListUNet(net, encoder, decoder)
    x = torch.randn(2, net.domains, 3, 16, 16, requires_grad=True)
    ours = net(x)
    theirs = [torch.stack(row, 1) for row in oracle(list(x.unbind(1)))]
    weights = [torch.randn_like(row) for row in ours]
    gradients = []
    for outputs in (ours, theirs):
        sum((w * row).sum() for w, row in zip(weights, outputs, strict=True)).backward()
        gradients.append(x.grad)
        x.grad = None
    torch.testing.assert_close(ours, tuple(theirs))
    torch.testing.assert_close(*gradients)
    layers = [*net.down_convs, *net.up_convs, net.output]
    for mine, convs in zip(layers, [*oracle.downs, *oracle.ups, oracle.last], strict=True):
        for t, group in enumerate(mine.groups):
            torch.testing.assert_close(mine.copies[group].weight.grad, convs[t].weight.grad)
    norms = zip(
        [*net.down_norms, *net.up_norms], [*oracle.down_norms, *oracle.up_norms], strict=True
    )
    for mine, theirs in norms:
        if not isinstance(theirs, nn.Identity):
            grads = torch.cat([norm.weight.grad for row in theirs for norm in row])
            torch.testing.assert_close(mine.weight.grad, grads)


@pytest.mark.usefixtures('double')
@pytest.mark.parametrize('decoder', [True, False], ids=['dec', 'nodec'])
@pytest.mark.parametrize('encoder', [True, False], ids=['enc', 'noenc'])
@pytest.mark.parametrize('grid', GRIDS)
def test_is_the_oracle(grid, encoder, decoder):
    """Every grid, exchange along each axis on and off."""
    net = build(GRIDS[grid], 0.4, encoder=dict(exchange=encoder), decoder=dict(exchange=decoder))
    wanted = {'modalities': encoder and net.grid.modalities > 1}
    wanted |= {'tasks': decoder and net.grid.tasks > 1}
    assert {n.axis for _, n in exchange_norms(net)} == {axis for axis, on in wanted.items() if on}
    assert all(norm.exchange_mask().any() for _, norm in exchange_norms(net))
    compare(net, encoder, decoder)


@pytest.mark.usefixtures('double')
@pytest.mark.parametrize(
    'groups',
    [('shared', 'shared'), ('task', 'task'), ([0, 0, 1], 'task'), ([0, 1, 0], [1, 0, 1])],
)
def test_is_the_oracle_for_any_sharing_of_weights(groups):
    parts = {name: dict(groups=g) for name, g in zip(('encoder', 'decoder'), groups, strict=True)}
    compare(build(CYCLE, 0.4, **parts), True, True)


@pytest.mark.usefixtures('double')
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_is_the_oracle_for_any_inputs(data):
    """Whatever streams have the same input, and thus run together up to their first norm."""
    tasks, modalities = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    count = data.draw(st.integers(1, 4))
    cells = st.lists(st.integers(0, count - 1), min_size=modalities, max_size=modalities)
    inputs = data.draw(st.lists(cells, min_size=tasks, max_size=tasks))
    compare(build(inputs, 0.4), True, True)


@pytest.mark.parametrize('kind', ['CENIN', 'IN2d'])
def test_norms_are_private_to_a_stream(kind):
    """With stock norms and with CEN norms in the config; both exchange."""
    net = build(CYCLE, norm_cfg=dict(type=kind, affine=True))
    for norm, conv in zip(net.up_norms, net.up_convs, strict=True):
        channels = conv.copies[0].out_channels
        assert [p.numel() for p in norm.parameters()] == [channels * 6] * 2
        assert norm.exchanges
        assert norm.selection.threshold == 1e-2
    stopped = build(CYCLE, norm_cfg=dict(type='CENIN', exchange=False))
    assert not list(exchange_norms(stopped))
    fixed = build(CYCLE, norm_cfg=dict(type='CENIN', selection='fixed', share=0.1))
    assert all(norm.selection.share == 0.1 for _, norm in exchange_norms(fixed))


def test_dropout_as_pix2pix():
    """After the first three layers of the decoder, in training alone."""
    net = build([[0]], dropout_ratio=0.5)
    assert [isinstance(layer, nn.Dropout) for layer in net.dropouts] == [True, True, True]
    deep = build([[0]], downs=6, dropout_ratio=0.5)
    assert [isinstance(layer, nn.Dropout) for layer in deep.dropouts] == [True] * 3 + [False] * 2
    x = torch.randn(1, 1, 3, 16, 16)
    assert not net(x)[0].equal(net(x)[0])
    net.eval()
    assert net(x)[0].equal(net(x)[0])


TABLES = [  # millions of the paper's tables; ours by counting, in brackets where they differ
    ([[0]], {}, 54.4),
    ([[0, 1]], {}, 54.4),
    (CYCLE, dict(decoder=dict(groups='shared', exchange=False)), 54.5),
    ([[0], [0]], {}, 89.3),
    ([[0, 1], [0, 1]], {}, 89.3),
    ([[0], [0]], dict(encoder=dict(groups='task')), 108.8),  # paper 108.7, yet 2 * 54.4
    (CYCLE, dict(decoder=dict(exchange=False)), 124.2),
    (CYCLE, dict(encoder=dict(groups='task')), 163.3),
    ([[0]] * 3, {}, 124.2),  # Table 8 says 124.3, Table 6 124.2 for more norms
    ([[0]] * 3, dict(encoder=dict(groups=[0, 0, 1])), 143.7),
]


@pytest.mark.parametrize(('inputs', 'kwargs', 'millions'), TABLES)
def test_parameter_counts_of_the_paper(inputs, kwargs, millions):
    with torch.device('meta'):
        net = MODELS.build(dict(type='CENUNetGenerator', inputs=inputs, **kwargs))
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == millions


def test_output_channels_by_task():
    net = build([[0, 1], [0, 1]], out_channels=[3, 10])
    outputs = net(torch.randn(2, 2, 3, 32, 16))
    assert [tuple(row.shape) for row in outputs] == [(2, 2, 3, 32, 16), (2, 2, 10, 32, 16)]


ERRORS = [
    (dict(inputs=[[0, 1], [0]]), 'rows of equal length'),
    (dict(downs=2), 'downs 2 at least 3'),
    (dict(out_channels=[3]), 'out_channels [3] is not one number per task, of 2'),
    (dict(encoder=dict(groups='both')), "groups must be 'shared', 'task' or one number"),
    (dict(encoder=dict(groups=[0, 2])), 'groups [0, 2] must give each of 2 tasks'),
    (dict(norm_cfg=dict(type='CENIN', modalities=2)), 'leave tasks and modalities out of norm_cfg'),
    (dict(norm_cfg=dict(type='CENIN', affine=False)), 'affine=False leaves no scaling factor'),
]


@pytest.mark.parametrize(('kwargs', 'text'), ERRORS, ids=[text for _, text in ERRORS])
def test_settings_that_cannot_be(kwargs, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        build(**(dict(inputs=[[0], [0]]) | kwargs))


def test_inputs_that_do_not_fit():
    net = build([[0, 1]])
    with pytest.raises(ValueError, match=r'expected \(B, 2, C, H, W\), got \(1, 3, 3, 16, 16\)'):
        net(torch.zeros(1, 3, 3, 16, 16))
    with pytest.raises(ValueError, match='24x16 pixels cannot be halved 4 times: crop or resize'):
        net(torch.zeros(1, 2, 3, 24, 16))


def test_one_copy_of_a_checkpoint_loads_into_all():
    one, two = build([[0], [0]], decoder=dict(groups='shared')), build([[0], [0]])
    two.load_state_dict(one.state_dict())
    x = torch.randn(1, 1, 3, 16, 16)
    for a, b in zip(one(x), two(x), strict=True):
        torch.testing.assert_close(a, b)


def test_checkpoints_of_another_grid_are_refused():
    three = build([[0]] * 3)
    with pytest.raises(ValueError, match='was made for another number of streams'):
        build([[0], [0]]).load_state_dict(three.state_dict())
    groups = dict(inputs=[[0]] * 3, encoder=dict(groups=[0, 0, 1]))
    with pytest.raises(ValueError, match='the checkpoint has 2, the model 3 for the groups'):
        build([[0]] * 3, encoder=dict(groups='task')).load_state_dict(build(**groups).state_dict())


def test_per_task_runs_every_task_by_its_copy():
    layer = PerTask(lambda: nn.Conv2d(2, 3, 1), StreamGrid(3, 2), [0, 1, 0])
    x = torch.randn(2 * 6, 2, 4, 4)
    for t, y in enumerate(layer.by_task(x)):
        for m in range(2):
            expected = layer.copies[[0, 1, 0][t]](x.view(3, 2, 2, 2, 4, 4)[t, m])
            torch.testing.assert_close(y[:, m], expected)
    assert layer(x).shape == (12, 3, 4, 4)
    assert check_groups('shared', 2) == (0, 0)
