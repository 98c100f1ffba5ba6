"""Parts of a network that streams do not share: one copy for each stream."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from .grid import StreamGrid


class PrivateCopies(nn.Module):
    """Run each stream of a folded batch through its own copy of a module.

    Args:
        module: Module to copy; the copies start equal.
        grid: Sizes T and M.

    Input and output: ``(T*M*B, ...)``; the output may be a list or tuple of tensors. A checkpoint
    of the module alone loads into all copies.
    """

    def __init__(self, module: nn.Module, grid: StreamGrid) -> None:
        super().__init__()
        tasks, modalities = grid.sizes
        self.grid = grid
        self.copies = nn.ModuleList(deepcopy(module) for _ in range(tasks * modalities))

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return the joined outputs of the copies."""
        pairs = zip(self.grid.separate(x), self.grid.streams, strict=True)
        return _join([self.copies[stream](part, *args, **kwargs) for part, stream in pairs])

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        for name in self.copies[0].state_dict():
            if prefix + name in state_dict:
                value = state_dict.pop(prefix + name)
                keys = (f'{prefix}copies.{i}.{name}' for i in range(len(self.copies)))
                state_dict.update(dict.fromkeys(keys, value))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _join(outputs: list[Any]) -> Any:
    """Join the outputs of the streams, which have the same structure."""
    if isinstance(outputs[0], (list, tuple)):
        return type(outputs[0])(_join(list(parts)) for parts in zip(*outputs, strict=True))
    return torch.cat(outputs) if isinstance(outputs[0], Tensor) else outputs[0]
