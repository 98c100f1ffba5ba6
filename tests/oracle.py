"""A CEN written for reading: lists of streams, separate norms, the equations as loops.

Independent of mmcen: everything in the package is held against this. ``x[t][m]`` is the tensor (B,
C, H, W) of stream (t, m).
"""

import torch
from torch import nn


def sub_part(i, n, channels):
    """Channels that stream i of n may exchange."""
    return range(i * channels // n, (i + 1) * channels // n)


def exchange(x, gammas, axis, threshold, region='disjoint'):
    """Eq. 4 by loops: ``x[t][m]`` are normalised features, ``gammas[t][m]`` their scaling
    factors."""
    tasks, modalities, channels = len(x), len(x[0]), x[0][0].shape[1]
    result = []
    for t in range(tasks):
        row = []
        for m in range(modalities):
            if axis == 'modalities':
                i, n, others = m, modalities, [x[t][k] for k in range(modalities) if k != m]
            else:
                i, n, others = t, tasks, [x[k][m] for k in range(tasks) if k != t]
            allowed = sub_part(i, n, channels) if region == 'disjoint' else range(channels)
            maps = []
            for c in range(channels):
                if others and c in allowed and abs(gammas[t][m][c].item()) < threshold:
                    total = others[0][:, c]
                    for other in others[1:]:
                        total = total + other[:, c]
                    maps.append(total / len(others))
                else:
                    maps.append(x[t][m][:, c])
            row.append(torch.stack(maps, 1))
        result.append(row)
    return result


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
