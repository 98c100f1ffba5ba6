"""Learning rates by part, epoch by epoch, and after a resume."""

import pytest
import torch
from torch import nn

from mmcen.engine import ListedLR

RATES = [[5e-4, 2.5e-4, 1e-4], [3e-3, 1.5e-3, 7e-4]]


def make(rates=RATES, encoder=5e-4):
    parts = [nn.Linear(1, 1), nn.Linear(1, 1)]
    groups = [
        {'params': p.parameters(), 'lr': lr} for p, lr in zip(parts, (encoder, 3e-3), strict=True)
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    return optimizer, ListedLR(optimizer, milestones=[2, 4], rates=rates)


def run(optimizer, scheduler, epochs):
    seen = []
    for _ in range(epochs):
        seen.append([group['lr'] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return seen


def test_rates_by_epoch():
    first, second, third = zip(*RATES, strict=True)
    expected = [list(first)] * 2 + [list(second)] * 2 + [list(third)] * 2
    optimizer, scheduler = make()
    assert run(optimizer, scheduler, 6) == expected
    optimizer, scheduler = make()
    run(optimizer, scheduler, 3)
    again, resumed = make()
    again.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    assert run(again, resumed, 3) == expected[3:]


def test_errors():
    with pytest.raises(ValueError, match='2 milestones need one rate more, got .0.0005, 0.1.'):
        make([[5e-4, 0.1], RATES[1]])
    with pytest.raises(
        ValueError, match='a part starts with learning rate 0.01, the rates listed begin with'
    ):
        make(encoder=0.01)
