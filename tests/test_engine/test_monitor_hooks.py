"""What the monitor measures and when it warns; the last and the best validation apart."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from torch import nn

from mmcen.budget import BudgetSchedule, ExchangeBudget
from mmcen.core import StreamGrid
from mmcen.engine import ExchangeMonitorHook, LastAndBestHook
from mmcen.layers import CENBN, StreamEnsemble

KEYS = ('budget/wanted', 'budget/met', 'churn')


@pytest.fixture
def runner(request, tmp_path):
    """Two exchanging norms of 4 and 8 channels over three named streams; nothing exchanged yet."""
    model = nn.Module()
    model.streams = ('a', 'b', 'c')
    model.wide = CENBN(12, modalities=3)
    model.narrow = CENBN(6, modalities=3)
    model.plain = CENBN(6, modalities=3, exchange=False)
    model.ensemble = StreamEnsemble(StreamGrid(1, 3))
    scalars = {}
    visualizer = SimpleNamespace(add_scalars=lambda values, step: scalars.update(values))
    hub = MessageHub.get_instance(request.node.name)
    return SimpleNamespace(
        model=model,
        message_hub=hub,
        visualizer=visualizer,
        scalars=scalars,
        iter=49,
        max_iters=100,
        work_dir=str(tmp_path),
        epoch=1,
    )


@pytest.fixture
def warnings(monkeypatch):
    """Texts that a hook logs."""
    texts = []
    for module in ('exchange_monitor_hook', 'last_and_best_hook'):
        monkeypatch.setattr(
            f'mmcen.engine.hooks.{module}.print_log', lambda text, **_: texts.append(text)
        )
    return texts


def test_shares_and_scores(runner, warnings):
    with torch.no_grad():
        runner.model.wide.gamma()[0, 0, :3] = 0.0  # 3 of stream a's own 4
        runner.model.narrow.gamma()[0, 2, 4:] = 0.0  # both of stream c's own
        runner.model.wide.gamma()[0, 1, :2] = 0.0  # not stream b's to exchange
        runner.model.ensemble.alpha[0] = torch.tensor([0.0, 0.0, 1.0]).log().clamp(min=-9)
    hook = ExchangeMonitorHook(interval=50)
    hook.after_train_iter(runner, batch_idx=0)
    seen = {k: v.current() for k, v in runner.message_hub.log_scalars.items()}
    assert seen['train/exchanged/a'] == pytest.approx(3 / 18)
    assert seen['train/exchanged/b'] == 0
    assert seen['train/exchanged/c'] == pytest.approx(2 / 18)
    assert seen['train/alpha/c'] == pytest.approx(1, abs=1e-3)
    hook.after_train_epoch(runner)
    assert runner.scalars['exchange/wide/a'] == pytest.approx(3 / 12)
    assert runner.scalars['exchange/narrow/c'] == pytest.approx(2 / 6)
    assert 'exchange/plain/a' not in runner.scalars
    assert warnings == []


def test_the_masks_of_the_last_epoch_are_in_a_file(runner, warnings, tmp_path):
    with torch.no_grad():
        runner.model.wide.gamma()[0, 0, :3] = 0.0
    ExchangeMonitorHook().after_train_epoch(runner)
    with np.load(tmp_path / 'exchange_masks.npz') as masks:
        assert set(masks) == {'wide', 'narrow'}
        assert masks['wide'].shape == (3, 12)
        assert masks['wide'].nonzero()[1].tolist() == [0, 1, 2]


@pytest.fixture
def budgets(runner):
    """The runner's norms under a budget of a quarter."""
    runner.model.wide = CENBN(12, modalities=3, budget=0.25)
    runner.model.narrow = CENBN(8, modalities=3, budget=0.25)
    return runner


def test_a_budget_and_its_churn(budgets, warnings):
    schedule = BudgetSchedule(begin=0.2, end=0.6, interval=20, ramp=0.1)
    budget = ExchangeBudget(budgets.model, criterion='gamma', schedule=schedule)
    budget.start(0, 100)
    hook = ExchangeMonitorHook(interval=1)
    seen = []
    for budgets.iter in range(100):
        budget.step(budgets.iter + 1, 100)
        hook.after_train_iter(budgets, batch_idx=0)
        logged = budgets.message_hub.log_scalars
        seen.append({k: logged[f'train/{k}'].current() for k in KEYS})
    assert seen[0]['budget/wanted'] == pytest.approx(0.1)
    assert seen[0]['budget/met'] == pytest.approx(0.1, abs=0.03)  # 1 of 12 and 1 of 8
    assert seen[49]['budget/wanted'] == pytest.approx(0.1 + 0.15 * 0.75)
    assert seen[99]['budget/wanted'] == seen[99]['budget/met'] == pytest.approx(0.25)
    assert 0 < seen[59]['churn'] == seen[99]['churn'] < 1  # the last choice is after step 60
    hook.after_train_epoch(budgets)
    assert budgets.scalars['exchange/narrow/c'] == pytest.approx(0.25)
    assert warnings == []


def test_a_budget_that_leaves_streams_nothing_of_their_own(budgets, warnings):
    budgets.model.wide = CENBN(12, modalities=3, budget=1 / 3)
    budgets.model.narrow = CENBN(6, modalities=3, budget=1 / 3)
    ExchangeMonitorHook().after_train_epoch(budgets)
    assert warnings[0].startswith('100% of the channels that may be exchanged are')
    assert warnings[0].endswith('Lower the budget')


def test_warns_once_when_nothing_is_exchanged(runner, warnings):
    hook = ExchangeMonitorHook(patience=0.25)
    runner.iter = 10
    hook.after_train_epoch(runner)
    assert warnings == []  # too early to say
    runner.iter = 49
    hook.after_train_epoch(runner)
    hook.after_train_epoch(runner)
    assert len(warnings) == 1
    assert 'nothing is exchanged after 50 iterations: the smallest |gamma| is 1' in warnings[0]
    assert 'Exchange under a budget' in warnings[0]
    assert 'raise the coefficient of SparsityHook' in warnings[0]


def test_warns_when_everything_is_exchanged(runner, warnings):
    for norm in (runner.model.wide, runner.model.narrow):
        nn.init.zeros_(norm.weight)
    ExchangeMonitorHook().after_train_epoch(runner)
    assert '100% of the channels that may be exchanged are' in warnings[0]


def test_a_model_without_exchange_is_left_in_peace(runner, warnings):
    del runner.model.wide, runner.model.narrow
    hook = ExchangeMonitorHook(interval=1)
    hook.after_train_iter(runner, batch_idx=0)
    hook.after_train_epoch(runner)
    assert warnings == []
    assert not runner.scalars


def test_last_and_best(runner, warnings):
    hook = LastAndBestHook()
    for runner.epoch, value in enumerate([10.0, 30.0, 20.0], 1):
        hook.after_val_epoch(runner, metrics={'mIoU': value, 'rgb/mIoU': value - 1})
    hook.after_train(runner)
    assert warnings == [
        'last validation (epoch 3): mIoU 20.00, rgb/mIoU 19.00',
        'best validation (epoch 2): mIoU 30.00, rgb/mIoU 29.00',
    ]
    LastAndBestHook(key='other').after_val_epoch(runner, metrics={'mIoU': 99.0})
    assert runner.message_hub.get_info('best_val')['mIoU'] == 30.0
