"""X-TC: the triangle loss teaches the network, the targets teach the cross-task networks."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS

from mmcen.core import exchange_norms
from projects.paper import rivals  # noqa: F401  (registers)
from tests.optional import need_mmagic
from tests.test_models.test_cen_translator import batch, build

need_mmagic()

TASKS = dict(depth=['rgb', 'edge'], normal=['rgb', 'edge'], shade=['rgb', 'edge'])
CROSS = dict(
    type='CrossTaskConsistency', network=dict(downs=4, base_channels=8, dropout_ratio=0), weight=7.0
)


def xtc(tasks, **kwargs):
    return build(tasks, type='XTCTranslator', consistency=CROSS, **kwargs)


def make(**kwargs):
    model = xtc(TASKS, **kwargs)
    parts = ('network', 'discriminators', 'ensemble', 'consistency')
    adam = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=2e-3))
    cfg = dict(constructor='mmagic.MultiOptimWrapperConstructor', **dict.fromkeys(parts, adam))
    return model, build_optim_wrapper(model, ConfigDict(cfg))


def images(model, size=32):
    inputs = batch(model, size)
    return {name: torch.stack(value) / 127.5 - 1 for name, value in inputs.items()}


def test_losses_are_those_written_out():
    """For each ordered pair and each stream, by a network of the pair's own."""
    model, _ = make()
    x = images(model)
    fakes = {t: dict(zip(TASKS[t], torch.rand(2, 2, 3, 32, 32), strict=True)) for t in TASKS}
    found = model.loss(fakes, x)
    assert len([name for name in found if '->' in name]) == 6
    cross = model.consistency
    assert not list(exchange_norms(cross))
    assert cross.pairs == [(a, b) for a in TASKS for b in TASKS if a != b]
    for i, (a, b) in enumerate(cross.pairs):
        expected = 0
        for image in fakes[a].values():
            stack = torch.stack([image] * 3, 1)
            expected += 7.0 * (cross.network(stack)[i][:, 0].tanh() - x[b]).abs().mean()
        torch.testing.assert_close(found[f'{a}->{b}.loss_triangle'], expected)


def test_who_learns_from_what():
    model, _ = make()
    x = images(model)
    outputs = model.outputs(x)
    losses = model.loss(outputs, x)
    sum(loss for name, loss in losses.items() if name.endswith('.loss_triangle')).backward()
    assert all(p.grad is None for p in model.consistency.parameters())
    assert any(p.grad is not None and p.grad.any() for p in model.network.parameters())
    assert all(p.requires_grad for p in model.consistency.parameters())


def test_a_training_lowers_both():
    model, wrappers = make()
    data = batch(model)
    before = {name: p.clone() for name, p in model.consistency.named_parameters()}
    logs = [model.train_step({'inputs': dict(data)}, wrappers) for _ in range(25)]
    for kind in ('cross', 'triangle'):
        keys = [key for key in logs[0] if key.endswith(f'loss_{kind}') and '->' in key]
        assert len(keys) == 6
        first, last = (sum(float(log[key]) for key in keys) for log in (logs[0], logs[-1]))
        assert last < 0.95 * first
    assert all(not p.equal(before[name]) for name, p in model.consistency.named_parameters()
               if name.endswith('weight'))  # fmt: skip
    assert float(logs[0]['loss_cross']) > 0


def test_without_it_nothing_of_it_is_there():
    model = build(TASKS)
    assert not hasattr(model, 'consistency')
    assert not any('consistency' in name for name in model.state_dict())


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match=r"between two image tasks or more, got \['depth'\]"):
        xtc(dict(depth=['rgb']))
    with pytest.raises(ValueError, match='consistency needs all tasks in every step'):
        xtc(TASKS, train_cfg=dict(flow='random'))
    with pytest.raises(ValueError, match='at least 3'):
        MODELS.build(dict(CROSS, tasks=['a', 'b'], network=dict(downs=2)))
