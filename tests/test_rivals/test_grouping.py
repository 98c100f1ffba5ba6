"""Task grouping against brute force and by hand; its command line on files as trainings leave
them."""

import importlib.util
import json
import re
import sys
from itertools import chain, combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projects.paper.rivals.grouping import best_grouping

TOOL = Path(__file__).parents[2] / 'projects' / 'paper' / 'task_grouping.py'
NAMES = ('normal', 'depth', 'semseg')
# Depth helps normal, not the other way; classes suffer from both.
LOSSES = {
    ('normal',): dict(normal=5.0),
    ('depth',): dict(depth=4.0),
    ('semseg',): dict(semseg=3.0),
    ('normal', 'depth'): dict(normal=2.0, depth=4.5),
    ('depth', 'semseg'): dict(depth=3.5, semseg=6.0),
    ('normal', 'depth', 'semseg'): dict(normal=4.0, depth=5.0, semseg=5.0),
}
BY_HAND = [  # budget, networks, total, groups
    (1, {('normal', 'depth', 'semseg')}, 14.0, [0, 0, 0]),
    (2, {('normal', 'depth'), ('semseg',)}, 9.5, [0, 0, 1]),
    (3, {('normal', 'depth'), ('depth', 'semseg'), ('semseg',)}, 8.5, [0, 1, 2]),
    (6, {('normal', 'depth'), ('depth', 'semseg'), ('semseg',)}, 8.5, [0, 1, 2]),
]


@pytest.mark.parametrize(('budget', 'networks', 'total', 'groups'), BY_HAND)
def test_by_hand(budget, networks, total, groups):
    best = best_grouping(LOSSES, budget)
    assert set(best.networks) == networks
    assert best.total == total
    assert best.groups(NAMES) == groups


def test_tasks_that_only_help():
    """Normal is served with the help of depth, which is served better elsewhere."""
    best = best_grouping(LOSSES, 3)
    assert best.serves == {
        'normal': ('normal', 'depth'),
        'depth': ('depth', 'semseg'),
        'semseg': ('semseg',),
    }
    assert best.helpers == {('normal', 'depth'): ['depth'], ('depth', 'semseg'): ['semseg']}
    assert best_grouping(LOSSES, 1).helpers == {}


def test_groups_count_in_the_order_of_the_tasks():
    best = best_grouping(LOSSES, 2)
    assert best.groups(['semseg', 'normal', 'depth']) == [0, 1, 1]


def test_no_more_networks_than_it_takes():
    losses = {('a',): dict(a=1.0), ('b',): dict(b=1.0), ('a', 'b'): dict(a=1.0, b=1.0)}
    assert best_grouping(losses, 3).networks == (('a', 'b'),)


@st.composite
def trainings(draw):
    """Losses of any sets of up to 4 tasks, with ties."""
    tasks = 'abcd'[: draw(st.integers(1, 4))]
    sets = list(chain.from_iterable(combinations(tasks, n) for n in range(1, len(tasks) + 1)))
    trained = draw(st.lists(st.sampled_from(sets), min_size=1, max_size=8, unique=True))
    loss = st.integers(-5, 9)
    return {own: {task: float(draw(loss)) for task in own} for own in trained}


def brute_force(losses, budget):
    """Assign every task to every network that has it; count the networks in use."""
    tasks = sorted({task for own in losses for task in own})
    totals = [(0.0, frozenset())]
    for task in tasks:
        totals = [
            (total + losses[own][task], used | {own})
            for total, used in totals
            for own in losses
            if task in own
        ]
    return min(((total, len(used)) for total, used in totals if len(used) <= budget), default=None)


@settings(max_examples=150, deadline=None)
@given(losses=trainings(), budget=st.integers(1, 5))
def test_is_brute_force(losses, budget):
    expected = brute_force(losses, budget)
    if expected is None:
        with pytest.raises(ValueError, match='raise the budget, or train networks for larger sets'):
            best_grouping(losses, budget)
        return
    best = best_grouping(losses, budget)
    assert (best.total, len(best.networks)) == expected
    assert set(best.serves.values()) == set(best.networks)
    assert all(task in own for task, own in best.serves.items())
    assert sum(losses[own][task] for task, own in best.serves.items()) == best.total


ERRORS = [
    ({}, 1, '0 networks and a budget of 1'),
    (LOSSES, 0, '6 networks and a budget of 0: give the losses of 1 network'),
    ({('a', 'b'): dict(a=1.0)}, 1, "network ('a', 'b') has losses of ['a']: give one for each"),
    ({('a',): dict(a=float('nan'))}, 1, 'one is not a number'),
    (
        {('a', 'b'): dict(a=1.0, b=1.0), ('b', 'a'): dict(a=1.0, b=1.0)},
        1,
        "networks ('a', 'b') and ('b', 'a') are of the same tasks: keep one",
    ),
    (
        {('a',): dict(a=1.0), ('b',): dict(b=1.0)},
        1,
        "no 1 of the 2 networks have all of ['a', 'b']: raise the budget",
    ),
]


@pytest.mark.parametrize(('losses', 'budget', 'text'), ERRORS, ids=[text for *_, text in ERRORS])
def test_losses_that_cannot_be(losses, budget, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        best_grouping(losses, budget)


@pytest.fixture
def run(monkeypatch, capsys):
    """Calls the tool in this process; returns what it prints, or its error."""

    def call(*args):
        monkeypatch.setattr(sys, 'path', [*sys.path])
        monkeypatch.setattr(sys, 'argv', ['task_grouping.py', *args])
        spec = importlib.util.spec_from_file_location('task_grouping', TOOL)
        module = importlib.util.module_from_spec(spec)
        sys.modules['task_grouping'] = module
        spec.loader.exec_module(module)
        try:
            module.main()
        except SystemExit:
            return capsys.readouterr().err
        return capsys.readouterr().out

    return call


@pytest.fixture
def runs(tmp_path):
    """Arguments for LOSSES, by turns as scalars.json (validations between iterations) and as
    translation_metric.json."""
    args = []
    for i, (own, losses) in enumerate(LOSSES.items()):
        path = tmp_path / f'{i}.json'
        values = {f'{task}/MAE': loss for task, loss in losses.items()}
        if i % 2:
            path.write_text(json.dumps({'metrics': values, 'images': 8}, indent=2) + '\n')
        else:
            early = dict.fromkeys(values, 99.0)
            lines = [{'loss': 3.0, 'step': 1}, early | {'step': 1}, {'loss': 2.0}, values]
            path.write_text('\n'.join(json.dumps(line) for line in lines) + '\n')
        args.append(f'{"+".join(own)}={path}')
    return args


@pytest.mark.parametrize(('budget', 'networks', 'total', 'groups'), BY_HAND)
def test_command_line(run, runs, budget, networks, total, groups):
    out = run(*runs, '--budget', str(budget), '--tasks', *NAMES)
    assert out.splitlines()[-1] == f'encoder=dict(groups={groups})'
    assert f'total {total:.4g}' in out
    assert out.count('*') == len(NAMES)
    assert ('leaves that help out' in ' '.join(out.split())) == (budget >= 3)


def test_a_file_that_a_metric_wrote(run, tmp_path):
    """TranslationMetric's own file, and the name of its ensemble, not of a stream."""
    pytest.importorskip('torchmetrics', reason='TranslationMetric needs torchmetrics')
    import torch

    from mmcen.evaluation import TranslationMetric

    path = tmp_path / 'translation_metric.json'
    metric = TranslationMetric(metrics=dict(a=['MAE'], b=['RMSE', 'MAE']), out_file=path)
    ours, wrong = torch.full((3, 4, 4), 127.5), torch.zeros(3, 4, 4)
    task = dict(ensemble=dict(pred=ours), rgb=dict(pred=wrong))
    metric.process(None, [dict(outputs=dict(a=task, b=task), targets=dict(a=ours, b=ours))])
    metric.evaluate(1)
    out = run(f'a+b={path}', '--budget', '1')
    assert 'total 0' in out
    assert out.splitlines()[-1] == 'encoder=dict(groups=[0, 0])'


def test_command_line_of_what_cannot_be(run, runs, tmp_path):
    assert "'x' is not TASK+TASK=FILE" in run('x')
    assert 'No such file' in run('a=none.json')
    assert 'normal is given twice' in run(runs[0], runs[0])
    assert "lacks 'normal/FID', it has ['normal/MAE']" in run(runs[0], '--metric', 'FID')
    assert 'invalid choice' in run(runs[0], '--metric', 'mIoU')
    assert 'raise the budget' in run(*runs[:3], '--budget', '1')
    assert "--tasks ['depth'] are not those of the networks" in run(runs[0], '--tasks', 'depth')
    bad = tmp_path / 'bad.json'
    bad.write_text('epoch 1: 3.0\n')
    assert 'bad.json is not JSON' in run(f'a={bad}')
    bad.write_text('[1, 2]')
    assert 'bad.json holds list' in run(f'a={bad}')
