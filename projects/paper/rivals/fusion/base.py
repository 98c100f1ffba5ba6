"""Shared parts of the fusion baselines of Tables 2 and 4."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmcen.core import StreamGrid


class Fusion(nn.Module):
    """Fuse the modalities of a task; input and output are folded features.

    In the paper's setting ("same setting" of Table 2) every stream continues with the fusion of its
    own features and those of the others, by the same weights. In the commonly used setting the
    first stream gets the fused features, the others are unchanged, and end after the last fusion of
    a network.

    Args:
        channels: Number of channels C.
        grid: Sizes T and M, at least two modalities.
        merge: Whether to use the commonly used setting.
        last: Whether this is the last fusion of a network, after which merged streams end.

    Input ``(T*M*B, C, H, W)``. Output of the same shape, or ``(T*B, C, H, W)`` after the last
    merge.

    Raises:
        ValueError: If there is a single modality.
    """

    mixes_streams = True

    def __init__(
        self, channels: int, grid: StreamGrid, merge: bool = False, last: bool = True
    ) -> None:
        super().__init__()
        if grid.modalities < 2:
            raise ValueError(
                f'{type(self).__name__} fuses two modalities or more, there is '
                f'{grid.modalities}: leave it out'
            )
        self.grid = grid
        self.channels = channels
        self.merge, self.last = merge, last

    def fuse(self, group: Tensor) -> Tensor:
        """Fuse own features, first, and others, ``(N, M, C, H, W)`` to ``(N, C, H, W)``."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        streams = self.grid.unfold(x)  # (B, T, M, C, H, W)
        if not self.merge:
            count = self.grid.modalities
            # [m, k] is stream m + k: own first, the others in turn
            groups = torch.stack([streams.roll(-k, 2) for k in range(count)], 3)
            return self.fuse(self.grid.fold(groups))
        tasks = StreamGrid(self.grid.tasks)
        fused = self.fuse(streams.transpose(0, 1).flatten(0, 1))  # (T*B, C, H, W)
        if self.last:
            return fused
        return self.grid.fold(torch.cat([tasks.unfold(fused), streams[:, :, 1:]], 2))


def first_modality(x: Tensor, grid: StreamGrid) -> Tensor:
    """Select the first stream of each task, ``(T*M*B, ...)`` to ``(T*B, ...)``."""
    return StreamGrid(grid.tasks).fold(grid.unfold(x)[:, :, :1])


def check_places(places: Sequence[int], count: int, what: str) -> list[int]:
    """Check the layers after which a network fuses or exchanges: numbers from 1, in order.

    Args:
        places: Numbers as the user gives them.
        count: Number of layers.
        what: Description for the error, such as 'fusion after stage'.

    Raises:
        ValueError: If empty, out of range, or not a sequence of integers.
    """
    listed = list(places) if isinstance(places, Sequence) else None
    if not listed or not all(isinstance(place, int) and 1 <= place <= count for place in listed):
        found = places if listed is None else listed
        raise ValueError(f'{what} {found}: give numbers of 1 to {count}, such as (2,)')
    return sorted(set(listed))


def check_merge(fusion: Mapping[str, Any], convs: str) -> None:
    """Reject private convolutions with a fusion that merges, whose streams already have them.

    Args:
        fusion: Config of a fusion; empty for none.
        convs: 'private' or 'shared'.

    Raises:
        ValueError: If convolutions are private and the fusion merges.
    """
    if fusion.get('merge') and convs == 'private':
        raise ValueError(
            'fusion with merge=True gives streams their own convolutions up to the fusion, and '
            "behind it there is one stream: leave convs='private' out"
        )
