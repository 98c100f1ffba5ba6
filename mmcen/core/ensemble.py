"""Ensemble of the outputs of a task's streams (section 3.2, footnote 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .functional import present_rows
from .grid import StreamGrid


class StreamEnsemble(nn.Module):
    """Weighted sum over modalities, one row of softmax scores per task.

    The streams' outputs are detached: the ensemble's loss trains the scores alone. The scores of
    the streams that are present sum to 1.

    Args:
        grid: Sizes T and M. ``alpha`` has shape (T, M) and starts with equal values.

    Input ``(B, T, M, ...)``, output ``(B, T, ...)``; or a list of one tensor ``(B, M, ...)`` for
    each task, whose other dimensions may differ, to a list of T tensors ``(B, ...)``.

    Examples:
        >>> StreamEnsemble(StreamGrid(1, 2))(torch.tensor([[[1.0, 3.0]]]))
        tensor([[2.]], grad_fn=<SumBackward1>)
    """

    def __init__(self, grid: StreamGrid) -> None:
        super().__init__()
        self.grid = grid
        self.alpha = nn.Parameter(torch.ones(grid.sizes))

    def scores(self) -> Tensor:
        """Return the softmax of alpha over the present modalities of each task, (T, M)."""
        return present_rows(self.alpha, self.grid).softmax(-1)

    def forward(self, x: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Return the weighted sum of the streams of each task."""
        scores = self.scores()
        if isinstance(x, Tensor):
            return _weigh(x, scores)
        return [_weigh(one, row) for one, row in zip(x, scores, strict=True)]


def _weigh(x: Tensor, scores: Tensor) -> Tensor:
    """Return the weighted sum of ``x`` over the dimension of the last one of ``scores``."""
    weights = scores.to(x.dtype)
    weights = weights.view(*scores.shape, *(1,) * (x.dim() - 1 - scores.dim()))  # (M, 1, ...)
    return (x.detach() * weights).sum(scores.dim())
