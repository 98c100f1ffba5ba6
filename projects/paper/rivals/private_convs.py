"""Convolutions that streams do not share: "unshared" of Tables 1 and 10."""

from collections.abc import Container
from typing import Any

from torch import nn

from mmcen.core import PrivateCopies, StreamGrid

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def unshare(module: nn.Module, grid: StreamGrid, only: Container[nn.Module] | None = None) -> None:
    """Give each stream its own copy of convolutions, with different initial values, in place.

    Layers that mix streams keep their convolutions, because they belong to all streams.

    Args:
        module: A part of a network.
        grid: Sizes T and M.
        only: Convolutions to replace; None for all.
    """
    for name, child in list(module.named_children()):
        if getattr(child, 'mixes_streams', False):
            continue
        if not isinstance(child, CONVOLUTIONS):
            unshare(child, grid, only)
        elif only is None or child in only:
            copies = PrivateCopies(child, grid)
            for copy in copies.copies:
                values: Any = copy
                values.reset_parameters()
            setattr(module, name, copies)
