"""A budget is met exactly, at once or along a ramp, and its choice is part of a checkpoint."""

from copy import deepcopy
from itertools import pairwise

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmcen.budget import BudgetSchedule, ExchangeBudget
from mmcen.core import (
    ExchangeNorm,
    StreamEnsemble,
    StreamGrid,
    convert,
    exchange_penalty,
    exchanged_share,
)
from mmcen.core.functional import top_channels
from mmcen.engine import ExchangeBudgetHook


def network(streams=2, budget=0.3, widths=(20, 40)):
    torch.manual_seed(0)
    layers, before = [], 3
    for width in widths:
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        before = width
    return convert(nn.Sequential(*layers), modalities=streams, budget=budget)


def fixed(**options):
    return ExchangeBudget(network(), criterion='fixed', schedule=BudgetSchedule(**options))


def norms_of(model):
    return [m for m in model.modules() if isinstance(m, ExchangeNorm)]


def shares(model):
    return [norm.exchange_mask().float().mean(-1).flatten().tolist() for norm in norms_of(model)]


def train(model, budget, steps, total, start=0):
    """Steps of a training with a loss that wants the channels of the other stream or its own."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for i in range(start, start + steps):
        generator = torch.Generator().manual_seed(i)
        x = torch.randn(2 * model.stream_grid.size, 3, 6, 6, generator=generator)
        y = model(x)
        loss = (y * torch.randn(y.shape, generator=generator)).mean() + y.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        budget.step(i + 1, total)
        yield i + 1


@pytest.mark.parametrize('criterion', ['fixed', 'gamma', 'ratio', 'movement', 'gates'])
@pytest.mark.parametrize('streams', [2, 3])
def test_the_share_is_met_at_every_step(criterion, streams):
    model = network(streams)
    schedule = BudgetSchedule(begin=0, end=1, interval=1)
    budget = ExchangeBudget(model, criterion=criterion, memory=3, schedule=schedule)
    budget.start()
    first = [norm.exchange_mask().clone() for norm in norms_of(model)]
    for _ in train(model, budget, 6, 6):
        for values in shares(model):
            assert values == pytest.approx([0.3] * streams)
        for norm in norms_of(model):
            assert not (norm.exchange_mask() & ~norm.exchangeable).any()
    pairs = zip(first, norms_of(model), strict=True)
    moved = any(not torch.equal(mask, norm.exchange_mask()) for mask, norm in pairs)
    assert moved is (criterion != 'fixed')


def test_a_ramp_and_the_end():
    model = network(budget=0.4)
    schedule = BudgetSchedule(begin=0.0, end=0.5, interval=1, ramp=0.1, first='gamma')
    budget = ExchangeBudget(model, criterion='gamma', schedule=schedule)
    budget.start()
    assert shares(model) == [pytest.approx([0.1, 0.1])] * 2
    seen = {step: shares(model)[0][0] for step in train(model, budget, 20, 20)}
    assert seen[5] == pytest.approx(0.25)  # half of the way
    assert [seen[10], seen[20]] == pytest.approx([0.4, 0.4])
    with torch.no_grad():
        for norm in norms_of(model):
            norm.norm.weight.uniform_()
    before = [norm.exchange_mask().clone() for norm in norms_of(model)]
    budget.step(20, 20)
    assert all(map(torch.equal, before, (norm.exchange_mask() for norm in norms_of(model))))


@pytest.mark.parametrize('first', ['fixed', 'gamma', 'none'])
@pytest.mark.parametrize('ramp', [None, 0.1])
def test_the_share_is_that_of_the_budget_not_of_the_norms(first, ramp):
    model = network(budget=0.4)
    schedule = BudgetSchedule(begin=0.25, end=0.9, interval=3, first=first, ramp=ramp)
    budget = ExchangeBudget(model, 0.2, criterion='gamma', schedule=schedule)
    budget.start(0, 20)
    start = 0.0 if first == 'none' else 0.2 if ramp is None else ramp
    met = [exchanged_share(model).flatten().tolist()]
    met += [exchanged_share(model).flatten().tolist() for _ in train(model, budget, 20, 20)]
    assert met[:6] == [pytest.approx([start] * 2)] * 6  # the first choice is after step 6
    # 10, 20 channels of 20, 40 times the share; 18 is the last choice
    assert met[18:] == [pytest.approx([0.2] * 2)] * 3
    assert all(a <= b for a, b in pairwise(met))
    assert list(schedule.choices(20)) == [6, 9, 12, 15, 18]


@settings(deadline=None)
@given(
    begin=st.floats(0, 1), length=st.floats(0, 1), interval=st.integers(1, 9),
    total=st.integers(1, 30), ramp=st.sampled_from([None, 0.05, 0.5]), shrinks=st.booleans(),
    first=st.sampled_from(['none', 'fixed']),
)  # fmt: skip
def test_a_training_of_any_length_meets_the_budget(
    begin, length, interval, total, ramp, shrinks, first
):
    model = network(budget=0.3)
    end = min(1.0, begin + length)
    schedule = BudgetSchedule(begin, end, interval, first, ramp, shrink=interval * shrinks)
    budget = ExchangeBudget(model, criterion='gamma', schedule=schedule)
    budget.start(0, total)
    for step in range(1, total + 1):
        budget.step(step, total)
    assert exchanged_share(model).tolist() == [[pytest.approx(0.3)] * 2]


@pytest.mark.parametrize('end, total, interval', [(0.7, 90, 1), (0.25, 3, 20), (0.75, 16, 1)])
def test_processes_average_before_every_choice(monkeypatch, end, total, interval):
    steps, averaged = range(1, total + 1), set()
    dist = torch.distributed
    for name, value in (('is_initialized', True), ('get_world_size', 1)):
        monkeypatch.setattr(dist, name, lambda value=value: value)
    monkeypatch.setattr(dist, 'all_reduce', lambda _: averaged.add(step))
    schedule = BudgetSchedule(0.1, end, interval)
    budget = ExchangeBudget(network(budget=0.3), criterion='movement', schedule=schedule)
    budget.start(0, total)
    for step in steps:
        budget.step(step, total)
    assert averaged == set(range(1, schedule.choices(total)[-1] + 1))


def test_a_network_that_is_not_trained_exchanges_its_budget():
    """Nothing exchanged cannot happen: at construction, at the start and at test."""
    model = network(budget=0.3)
    assert exchanged_share(model).tolist() == [[pytest.approx(0.3)] * 2]
    ExchangeBudget(model).start()
    model.eval()
    before = [norm.exchange_mask().clone() for norm in norms_of(model)]
    with torch.no_grad():
        for norm in norms_of(model):
            norm.norm.weight.uniform_(5, 6)  # no scale is near any threshold
        model(torch.randn(4, 3, 6, 6))
    assert all(map(torch.equal, before, (norm.exchange_mask() for norm in norms_of(model))))
    assert exchange_penalty(model) == 0


def test_a_step_that_overflows_spoils_no_effect():
    model = network(widths=(20,))
    (norm,) = norms_of(model)
    schedule = BudgetSchedule(begin=0, end=1, interval=1)
    budget = ExchangeBudget(model, memory=2, schedule=schedule)
    budget.start()
    effects = torch.randn(1, 2, 20)
    norm.selection.watch()(effects)
    effects[0, 0, :3] = torch.tensor([torch.inf, -torch.inf, torch.nan])
    norm.selection.watch()(effects)
    assert norm.selection.effects.isfinite().all()
    budget.step(1, 2)
    assert exchanged_share(model).tolist() == [[pytest.approx(0.3)] * 2]


def test_moved_channels_are_counted():
    model = network(widths=(20,))
    (norm,) = norms_of(model)
    schedule = BudgetSchedule(begin=0, interval=1, first='gamma')
    budget = ExchangeBudget(model, criterion='gamma', schedule=schedule)
    with torch.no_grad():
        norm.gamma().copy_(torch.arange(40.0).view(1, 2, 20))
        budget.start()
        norm.gamma()[0, 1, 19] = 0.0  # one of stream 1's six gives way to it
    budget.step(1, 2)
    assert norm.selection.moved == 1
    budget.step(1, 2)
    assert norm.selection.moved == 0


@pytest.mark.parametrize('scope', ['layer', 'network'])
@pytest.mark.parametrize('criterion', ['movement', 'gates'])
def test_a_layer_without_measured_effects_keeps_its_choice(criterion, scope):
    model = network()
    budget = ExchangeBudget(model, criterion=criterion, scope=scope)
    budget.start()
    before = shares(model), [norm.exchange_mask().clone() for norm in norms_of(model)]
    budget.step(1, 1)
    assert shares(model) == before[0]
    assert all(map(torch.equal, before[1], (norm.exchange_mask() for norm in norms_of(model))))


def test_a_new_training_may_keep_the_choice_of_a_checkpoint():
    first, second = network(), network()
    list(train(first, ExchangeBudget(first, schedule=BudgetSchedule(0, 1, 1)), 3, 3))
    second.load_state_dict(first.state_dict())
    ExchangeBudget(second, schedule=BudgetSchedule(first='keep')).start()
    for old, new, fresh in zip(*map(norms_of, (first, second, network())), strict=True):
        assert torch.equal(old.exchange_mask(), new.exchange_mask())
        assert not torch.equal(old.exchange_mask(), fresh.exchange_mask())
        assert old.selection.effects.any()
        assert not new.selection.effects.any()


def test_a_stock_checkpoint_loads_strictly():
    stock = torchvision.models.resnet18()
    converted = convert(torchvision.models.resnet18(), modalities=2, budget=0.3)
    converted.load_state_dict(stock.state_dict())
    assert exchanged_share(converted).tolist() == [[pytest.approx(0.3, abs=0.01)] * 2]


def test_a_deep_copy_has_its_own_grid():
    both = nn.ModuleDict(dict(network=network(), ensemble=StreamEnsemble(StreamGrid(1, 2))))
    both.ensemble.grid = both.network.stream_grid
    copy = deepcopy(both)
    x = torch.randn(2, 3, 6, 6)
    with copy.network.stream_grid.only(modalities=[1]) as grid:
        assert copy.ensemble(grid.unfold(copy.network(x))).shape == (2, 1, 40, 6, 6)
        assert both.network.stream_grid.is_whole
        assert both.ensemble.scores().tolist() == [[0.5, 0.5]]


def test_over_the_whole_network_layers_share_the_budget():
    model = network()
    first, second = norms_of(model)
    with torch.no_grad():
        first.norm.weight.mul_(100)  # which changes nothing relative to its median
        first.gamma()[0, 0, :9] = first.gamma()[0, 1, 11:] = 1.0  # these go first
    schedule = BudgetSchedule(begin=0, interval=1)
    budget = ExchangeBudget(model, criterion='gamma', scope='network', schedule=schedule)
    budget.step(1, 10)
    small = first.gamma() == 1
    assert first.exchange_mask()[small].all()  # 9 of 10, though a layer's share would be 6
    both = first.exchange_mask().sum(-1) + second.exchange_mask().sum(-1)
    assert both.tolist() == [[18, 18]]  # of 60
    assert second.exchange_mask().any()


@settings(deadline=None)
@given(seed=st.integers(0, 99), stay=st.sampled_from([0.0, 0.5, 50.0]))
def test_hysteresis_keeps_what_is_chosen(seed, stay):
    model = network(widths=(20,))
    (norm,) = norms_of(model)
    with torch.no_grad():
        norm.norm.weight.copy_(torch.rand(40, generator=torch.Generator().manual_seed(seed)))
    gamma, region = norm.gamma().detach().abs(), norm.exchangeable
    before = norm.exchange_mask().clone()
    schedule = BudgetSchedule(begin=0, interval=1)
    budget = ExchangeBudget(model, criterion='gamma', stay=stay, schedule=schedule)
    budget.step(1, 2)
    bonus = stay * gamma[region].std() * before
    assert torch.equal(norm.exchange_mask(), top_channels(-gamma + bonus, region, 0.3))
    if stay == 50:
        assert torch.equal(norm.exchange_mask(), before)


@pytest.mark.parametrize(
    ('criterion', 'more'),
    [('movement', {}), ('gates', {}), ('movement', dict(shrink=2, first='none'))],
)
def test_a_training_goes_on_from_its_checkpoint(criterion, more):
    schedule = BudgetSchedule(begin=0, end=1, interval=2, **more)
    options = dict(criterion=criterion, memory=3, schedule=schedule)
    whole = network()
    budget = ExchangeBudget(whole, **options)
    budget.start()
    list(train(whole, budget, 3, 8))
    state = {key: value.clone() for key, value in whole.state_dict().items()}
    list(train(whole, budget, 5, 8, start=3))
    part = network()
    part.load_state_dict(state)
    budget = ExchangeBudget(part, **options)
    budget.start(3, 8)
    list(train(part, budget, 5, 8, start=3))
    for key, value in whole.state_dict().items():
        assert torch.equal(value, part.state_dict()[key]), key
    assert any('chosen' in key for key in state)


@pytest.mark.parametrize('criterion', ['movement', 'gates'])
def test_channels_whose_exchange_helps_are_found(criterion):
    """Where the target of a stream is the other's channel, exchange lowers the loss."""
    torch.manual_seed(0)
    grid = StreamGrid(1, 2)
    model = nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8, affine=True))
    convert(model, modalities=2, exchange=lambda *_: True, budget=0.25)
    (norm,) = norms_of(model)
    wanted = torch.zeros(1, 2, 8, dtype=torch.bool)
    wanted[0, 0, [0, 3]] = wanted[0, 1, [5, 6]] = True
    schedule = BudgetSchedule(begin=0, end=1, interval=10)
    budget = ExchangeBudget(model, criterion=criterion, memory=10, stay=0.1, schedule=schedule)
    budget.start()
    for i in range(60):
        x = torch.randn(8, 4, 5, 5)
        norm.exchange = False
        with torch.no_grad():
            target = grid.unfold(model(x)).clone()  # (B, 1, 2, C, H, W)
        norm.exchange = True
        for place in map(tuple, wanted[0].nonzero().tolist()):
            m, c = place
            target[:, 0, m, c] = target[:, 0, 1 - m, c]
        (grid.unfold(model(x)) - target).square().mean().backward()
        budget.step(i + 1, 60)
    assert torch.equal(norm.exchange_mask(), wanted)


def test_the_soft_gates_keep_to_the_budget():
    """With effects that are noise, the mean of the soft gates goes to the budget."""
    (norm,) = norms_of(network(widths=(40,)))
    norm.selection.memory, norm.selection.temperature = 10, 1.0
    for _ in range(600):
        norm.selection.watch()(torch.randn(1, 2, 40))
    soft = norm.selection.gates.sigmoid().where(norm.exchangeable, 0.0).mean(-1)
    assert soft.tolist() == [[pytest.approx(0.3, abs=0.03)] * 2]
    assert not norm.selection.gates[~norm.exchangeable].any()


def test_each_choice_is_exchanged_if_shrinking_takes_the_whole_interval():
    model = network(widths=(20,))
    schedule = BudgetSchedule(begin=0.0, end=0.8, interval=3, shrink=3, first='none')
    budget = ExchangeBudget(model, criterion='gamma', schedule=schedule)
    budget.start(0, 15)
    met = []
    for step in range(1, 16):
        budget.step(step, 15)
        met.append(exchanged_share(model).tolist()[0])
    assert met == [[0.0, 0.0]] * 5 + [[pytest.approx(0.3)] * 2] * 10


def test_new_channels_shrink_to_zero_before_they_are_exchanged():
    model = network(widths=(20,))
    (norm,) = norms_of(model)
    with torch.no_grad():
        norm.gamma().copy_(torch.rand(1, 2, 20) + 0.5)
    start = norm.gamma().detach().clone()
    wanted = top_channels(-start, norm.exchangeable, 0.3)
    schedule = BudgetSchedule(begin=0.5, end=0.5, interval=5, shrink=4, first='none')
    budget = ExchangeBudget(model, criterion='gamma', schedule=schedule)
    budget.start(0, 10)
    for step, left in zip(range(1, 11), [4, 4, 4, 4, 4, 3, 2, 1, 0, 0], strict=True):
        budget.step(step, 10)
        expected = torch.where(wanted, start * left / 4, start)
        torch.testing.assert_close(norm.gamma(), expected)
        assert torch.equal(norm.exchange_mask(), wanted & (left == 0))
    assert (norm.gamma()[wanted] == 0).all()


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: ExchangeBudget(network(), criterion='best'), "criterion must be one of .*'best'"),
        (lambda: ExchangeBudget(network(), scope='stage'), "scope must be one of .*, got 'stage'"),
        (lambda: ExchangeBudget(nn.Conv2d(1, 1, 1)), 'no norm exchanges under a budget: give the'),
        (lambda: network(budget=1.5), 'share must be within 0..1, got 1.5'),
        (lambda: network(budget=0.6), 'above 0 and at most 1/2, the sub-part of .*, got 0.6'),
        (lambda: network(budget=0.0), 'above 0 and at most 1/2, the sub-part of .*, got 0.0'),
        (lambda: ExchangeBudget(network(3), 0.4), 'at most 1/3, the sub-part of .*, got 0.4'),
        (lambda: ExchangeBudget(network(), 0.01), 'less than half a channel.* give at least 0.025'),
        (lambda: network(budget=0.01), 'less than half a channel.* give at least 0.025'),
        (lambda: BudgetSchedule(shrink=21), 'within 0..interval=20, got 21'),
        (lambda: BudgetSchedule(begin=0.8), '0 <= begin <= end <= 1 must hold, got 0.8'),
        (lambda: BudgetSchedule(interval=0), 'interval is a number of steps, 1 or more, got 0'),
        (lambda: ExchangeBudget(network(), schedule=BudgetSchedule(ramp=0.9)), '1/2.* got 0.9'),
        (
            lambda: ExchangeBudgetHook(ramp=0.1),
            r"'ramp': it belongs to schedule=dict\(ramp=\.\.\.\)",
        ),
        (lambda: ExchangeBudgetHook(schedule=dict(rmp=0.1)), "schedule has no argument 'rmp'"),
        (lambda: BudgetSchedule(first='best'), "first must be one of .*, got 'best'"),
        (lambda: fixed(ramp=0.1), 'never chooses again'),
        (lambda: fixed(first='none'), 'never chooses again'),
        (
            lambda: ExchangeBudget(nn.Sequential(network(), network(budget=0.2))),
            r'norms have budgets of \[0.2, 0.3\]: give ExchangeBudget the share',
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
