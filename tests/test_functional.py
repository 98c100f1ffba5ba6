"""The paper's equations, held against loops and autograd."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmcen.core.functional import soft_threshold, sparsity_penalty, sparsity_subgradient, sub_parts
from mmcen.core.grid import StreamGrid
from tests.oracle import sub_part


@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(4, 33),
    st.sampled_from(['tasks', 'modalities']),
)
def test_sub_parts_are_disjoint_and_cover(tasks, modalities, channels, axis):
    parts = sub_parts(StreamGrid(tasks, modalities), channels, axis)
    assert parts.shape == (tasks, modalities, channels)
    n = {'tasks': tasks, 'modalities': modalities}[axis]
    for t in range(tasks):
        for m in range(modalities):
            i = {'tasks': t, 'modalities': m}[axis]
            expected = list(sub_part(i, n, channels)) if n > 1 else []
            assert parts[t, m].nonzero().flatten().tolist() == expected
    if n > 1:  # along the axis each channel belongs to one stream
        assert (parts.sum(dim={'tasks': 0, 'modalities': 1}[axis]) == 1).all()


def test_subgradient_is_autograd_of_the_penalty():
    gamma = torch.randn(2, 3, 8, requires_grad=True)
    parts = sub_parts(StreamGrid(2, 3), 8, 'modalities')
    sparsity_penalty(gamma, parts).backward()
    assert torch.equal(gamma.grad, sparsity_subgradient(gamma.detach(), parts))
    assert sparsity_subgradient(torch.zeros(2, 3, 8), parts).abs().sum() == 0


def test_soft_threshold_minimises_its_objective():
    gamma, amount = torch.tensor([-0.5, -0.05, 0.0, 0.03, 0.2, 0.2]), 0.1
    penalised = torch.tensor([1, 1, 1, 1, 1, 0], dtype=torch.bool)
    found = soft_threshold(gamma, amount, penalised)
    torch.testing.assert_close(found, torch.tensor([-0.4, 0.0, 0.0, 0.0, 0.1, 0.2]))
    grid = torch.linspace(-1, 1, 20001)
    for g, f in zip(gamma[:5].tolist(), found[:5].tolist(), strict=True):
        best = grid[(0.5 * (grid - g) ** 2 + amount * grid.abs()).argmin()]
        assert f == pytest.approx(best.item(), abs=1e-3)
