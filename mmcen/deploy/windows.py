"""Swin Transformers in operations whose sizes ``torch.export`` can reason about.

mmseg's layers round sizes by floating-point numbers, branch on them, and take the batch size from
the number of windows. With free height and width, the export of one block then takes minutes. The
layers here compute the same and use only rounded-up quotients of integers.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, TypeVar

import torch
from mmseg.models.backbones.swin import ShiftWindowMSA
from mmseg.models.utils.embed import AdaptivePadding, PatchMerging
from torch import Tensor, nn

Network = TypeVar('Network', bound=nn.Module)


def follow_sizes(network: Network) -> Network:
    """Return a copy of a network with the layers of this module, or the network if it needs none.

    Args:
        network: Network with any of mmseg's ``ShiftWindowMSA``, ``PatchMerging`` and
            ``AdaptivePadding``. A layer with other settings than those of Swin stays as it is.
    """
    if not any(_replacement(module) for module in network.modules()):
        return network
    network = deepcopy(network)
    for name, module in list(network.named_modules()):
        kind = _replacement(module)
        if kind is not None:
            parent, _, child = name.rpartition('.')
            setattr(network.get_submodule(parent), child, kind(module))
    return network


def _replacement(module: Any) -> type[nn.Module] | None:
    if type(module) is ShiftWindowMSA:
        return Windows
    if type(module) is AdaptivePadding:
        plain = module.padding == 'corner' and tuple(module.kernel_size) == tuple(module.stride)
        return PadCorner if plain and tuple(module.dilation) == (1, 1) else None
    if type(module) is PatchMerging:
        sampler, padding = module.sampler, module.adap_padding
        halves = tuple(sampler.kernel_size) == tuple(sampler.stride) == (2, 2)
        return Merge if halves and padding is not None and padding.padding == 'corner' else None
    return None


class PadCorner(nn.Module):
    """Zeros below and to the right, up to multiples of the strides: mmseg's AdaptivePadding."""

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.stride = tuple(padding.stride)

    def forward(self, x: Tensor) -> Tensor:
        below, right = (
            _parts(size, stride) * stride - size
            for size, stride in zip(x.shape[2:], self.stride, strict=True)
        )
        return nn.functional.pad(x, (0, right, 0, below))


class Merge(nn.Module):
    """Merge 2x2 patches: mmseg's PatchMerging."""

    def __init__(self, merging: Any) -> None:
        super().__init__()
        self.pad = PadCorner(merging.adap_padding)
        self.norm, self.reduction = merging.norm or nn.Identity(), merging.reduction

    def forward(self, x: Tensor, size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        x = x.unflatten(1, size).permute(0, 3, 1, 2)  # (B, C, H, W)
        x = nn.functional.pixel_unshuffle(self.pad(x), 2)
        merged = (x.shape[2], x.shape[3])
        return self.reduction(self.norm(x.flatten(2).transpose(1, 2))), merged


class Windows(nn.Module):
    """Attention inside shifted windows: mmseg's ShiftWindowMSA."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.length, self.shift = layer.window_size, layer.shift_size
        attention = layer.w_msa
        self.heads, self.scale = attention.num_heads, attention.scale
        self.qkv, self.proj = attention.qkv, attention.proj
        area = self.length**2
        places = attention.relative_position_index.flatten()
        table = attention.relative_position_bias_table.detach()[places]
        bias = table.view(area, area, self.heads).permute(2, 0, 1)
        self.register_buffer('bias', bias)  # (heads, area, area)
        self.bias: Tensor

    def forward(self, query: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = size
        n, shift, channels = self.length, self.shift, query.shape[2]
        rows, columns = _parts(height, n), _parts(width, n)  # of windows
        x = query.unflatten(1, size)
        x = nn.functional.pad(x, (0, 0, 0, columns * n - width, 0, rows * n - height))
        x = torch.roll(x, (-shift, -shift), (1, 2)) if shift else x
        x = x.view(-1, rows, n, columns, n, channels).transpose(2, 3)
        y = self._attend(x.reshape(-1, rows * columns, n * n, channels), rows, columns)
        y = y.view(-1, rows, columns, n, n, channels).transpose(2, 3)
        y = y.reshape(-1, rows * n, columns * n, channels)
        y = torch.roll(y, (shift, shift), (1, 2)) if shift else y
        return y[:, :height, :width].flatten(1, 2)

    def _attend(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """Attention inside each window of ``(B, windows, area, C)``."""
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        query, key, value = parts  # (B, windows, heads, area, c)
        scores = (query * self.scale) @ key.transpose(-2, -1) + self.bias
        if self.shift:
            scores = scores + self._mask(rows, columns)[:, None]
        return self.proj((scores.softmax(-1) @ value).transpose(2, 3).flatten(3))

    def _mask(self, rows: int, columns: int) -> Tensor:
        """Return -100 for pixels that the shift brought together, ``(windows, area, area)``."""
        n = self.length
        down, across = (self._regions(count * n) for count in (rows, columns))
        region = (3 * down[:, None] + across).view(rows, n, columns, n).transpose(1, 2)
        region = region.reshape(rows * columns, n * n)
        return torch.where(region[:, None] == region[:, :, None], 0.0, -100.0)

    def _regions(self, size: int) -> Tensor:
        """Return the number of the region of each row or column, 0..2."""
        place = torch.arange(size, device=self.bias.device)
        return (place >= size - self.length).long() + (place >= size - self.shift).long()


def _parts(size: int, length: int) -> int:
    """Return how many parts of a length cover a size."""
    # ONNX rounds quotients towards zero, so this has to be one of positive numbers
    return (size + length - 1) // length
