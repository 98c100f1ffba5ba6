"""Decision scores: the output of a task is an ensemble of its streams' (section 3.2, footnote
2)."""

import torch
from torch import Tensor, nn

from ..streams import StreamGrid


class StreamEnsemble(nn.Module):
    """Weighted sum over modalities, one row of softmax scores per task.

    The streams' outputs are detached: the ensemble's loss trains the scores alone.

    Args:
        grid: sizes T and M. ``alpha`` has shape (T, M) and starts equal.

    Input ``(B, T, M, ...)``, output ``(B, T, ...)``.

    Example:
        >>> StreamEnsemble(StreamGrid(1, 2))(torch.tensor([[[1.0, 3.0]]]))
        tensor([[2.]], grad_fn=<SumBackward1>)
    """

    def __init__(self, grid: StreamGrid) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(grid.tasks, grid.modalities))

    def scores(self) -> Tensor:
        """Softmax of alpha over the modalities of each task: (T, M), rows sum to 1."""
        return self.alpha.softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.scores().to(x.dtype)
        scores = scores.view(*scores.shape, *(1,) * (x.dim() - 3))  # (T, M, 1, ...)
        return (x.detach() * scores).sum(2)  # (B, T, ...)
