"""What the fusion baselines of Tables 2 and 4 have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmcen.core import StreamGrid


class Fusion(nn.Module):
    """A layer that fuses the modalities of a task, with the interface of exchange: folded features
    in and out.

    In the paper's own setting ("same setting" of Table 2) every stream goes on, with what one
    module of weights makes of its features and the others'. In the commonly used setting one stream
    goes on: the first takes the fused features, the others stay as they are, and leave after the
    last fusion of a network.

    Args:
        channels: C.
        grid: Sizes T and M, at least two modalities.
        merge: The commonly used setting.
        last: Place of the last of the fusions of a network; where streams merge, the others leave
            here.

    Input ``(T*M*B, C, H, W)``. Output alike, or ``(T*B, C, H, W)`` after the last merge.

    Raises:
        ValueError: A single modality.
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
        """A stream's features and the others' behind them, ``(N, M, C, H, W)``, to ``(N, C, H,
        W)``."""
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
    """The first stream of each task, ``(T*M*B, ...)`` to ``(T*B, ...)``."""
    return StreamGrid(grid.tasks).fold(grid.unfold(x)[:, :, :1])


def check_places(places: Sequence[int], count: int, what: str) -> list[int]:
    """Where a network fuses or exchanges: numbers from 1, in order.

    Args:
        places: As a user gives them.
        count: How many there are.
        what: Is told with them when they are wrong, such as 'fusion after stage'.

    Raises:
        ValueError: None, one that there is not, or no sequence of numbers.
    """
    listed = list(places) if isinstance(places, Sequence) else None
    if not listed or not all(isinstance(place, int) and 1 <= place <= count for place in listed):
        found = places if listed is None else listed
        raise ValueError(f'{what} {found}: give numbers of 1 to {count}, such as (2,)')
    return sorted(set(listed))


def check_merge(fusion: Mapping[str, Any], convs: str) -> None:
    """Streams that merge have convolutions of their own already.

    Args:
        fusion: Config of a fusion, empty without.
        convs: 'private' or 'shared'.

    Raises:
        ValueError: Private ones beside a fusion that merges.
    """
    if fusion.get('merge') and convs == 'private':
        raise ValueError(
            'fusion with merge=True gives streams their own convolutions up to the fusion, and '
            "behind it there is one stream: leave convs='private' out"
        )
