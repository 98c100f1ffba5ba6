"""The reference for any grid of streams: lists of streams, separate norms, the equations as loops.

The equations are those of ``examples/cen_in_one_file.py``, which does not use mmcen. ``x[t][m]`` is
the tensor (B, C, H, W) of stream (t, m).
"""

from cen_in_one_file import exchange as exchange_streams
from cen_in_one_file import sub_part
from torch import nn

__all__ = ['StreamNorms', 'exchange', 'sub_part']


def exchange(x, gammas, axis, threshold, region='disjoint'):
    """Eq. 4 along one axis of the grid: ``x[t][m]`` are normalised features, ``gammas[t][m]`` their
    scaling factors."""
    if axis == 'tasks':  # the streams of one modality exchange: a column of the grid
        columns = exchange(transpose(x), transpose(gammas), 'modalities', threshold, region)
        return transpose(columns)
    n, channels = len(x[0]), x[0][0].shape[1]
    disjoint = [sub_part(i, n, channels) for i in range(n)]
    parts = disjoint if region == 'disjoint' else [range(channels)] * n
    rows = zip(x, gammas, strict=True)
    return [exchange_streams(row, factors, parts, threshold) for row, factors in rows]


def transpose(grid):
    return [list(column) for column in zip(*grid, strict=True)]


class StreamNorms(nn.Module):
    """Private norms of a grid of streams, followed by the exchange."""

    def __init__(self, make, tasks, modalities, axis, threshold, region):
        super().__init__()
        self.norms = nn.ModuleList(
            nn.ModuleList(make() for _ in range(modalities)) for _ in range(tasks)
        )
        self.axis, self.threshold, self.region = axis, threshold, region

    def forward(self, x):
        y = [
            [norm(v) for norm, v in zip(*rows, strict=True)]
            for rows in zip(self.norms, x, strict=False)
        ]
        gammas = [[norm.weight for norm in row] for row in self.norms]
        return exchange(y, gammas, self.axis, self.threshold, self.region)
