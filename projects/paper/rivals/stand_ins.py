"""Values of replaced channels other than the mean of the others: Table 12.

Streams along the axis of exchange are numbered 0..n-1. Each owns one of n sub-parts of the
channels, see :func:`mmcen.core.sub_parts`; channel i has a *place* in its sub-part, and the
channels at the same place of the other sub-parts are the evenly spaced ones of Figure 10.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mmcen.core.functional import mean_of_others, part_bounds

STAND_INS = (
    'mean', 'zero', 'another', 'same_spaced', 'same_random', 'others_spaced', 'others_both',
    'others_largest', 'weighted', 'concat',
)  # fmt: skip


def spaced_channels(parts: int, channels: int) -> Tensor:
    """Return, for each channel, those at its place in the other sub-parts, ``(n - 1, C)``.

    Examples:
        >>> spaced_channels(2, 6)
        tensor([[3, 4, 5, 0, 1, 2]])
    """
    bounds = part_bounds(parts, channels)
    sizes = [high - low for low, high in pairwise(bounds)]
    rows = []
    for k in range(1, parts):
        row = []
        for part, size in enumerate(sizes):
            other = (part + k) % parts
            row += [bounds[other] + place * sizes[other] // size for place in range(size)]
        rows.append(row)
    return torch.tensor(rows)


class StandIn(nn.Module):
    """Compute values of replaced channels by one of the rows of Table 12.

    Args:
        kind: ``'zero'``: nothing; ``'another'``: channel i of the next stream;
            ``'same_spaced'``: mean of the stream's own channels at the same place of the other
            sub-parts, [a] of Figure 10; ``'same_random'``: one of its own channels outside of the
            sub-part, drawn once, [b]; ``'others_spaced'``: mean of the other streams' channels [c],
            as [a]; ``'others_both'``: of those and of channel i, [c] and [d];
            ``'others_largest'``: mean of the n - 1 channels of each other stream that have the
            largest ``|gamma|``, without i; ``'weighted'``: weighted mean of the others' channels i,
            by a learned softmax for each stream; ``'concat'``: a 1x1 convolution over the others'
            channels i, for each i, which starts as their mean.
        streams: N, along the axis of exchange.
        channels: C.

    Input: features ``(B, T, M, C, H, W)``, gamma ``(T, M, C)`` and the dimension along which
    streams exchange. Output: values for all channels, in the shape of the features.
    """

    def __init__(self, kind: str, streams: int, channels: int) -> None:
        super().__init__()
        self.kind = kind
        self.streams = streams
        self.register_buffer('spaced', spaced_channels(streams, channels), persistent=False)
        self.spaced: Tensor
        if kind == 'same_random':
            self.register_buffer('drawn', self._draw(channels))
            self.drawn: Tensor
        elif kind == 'weighted':
            self.scores = nn.Parameter(torch.zeros(streams, streams - 1))
        elif kind == 'concat':
            self.weight = nn.Parameter(torch.full((channels, streams - 1), 1 / (streams - 1)))

    def _draw(self, channels: int) -> Tensor:
        """For each channel one from outside of its sub-part, ``(C,)``."""
        bounds = torch.tensor(part_bounds(self.streams, channels))
        part = torch.bucketize(torch.arange(channels), bounds, right=True) - 1
        allowed = (part[:, None] != part[None]).float()  # (C, C)
        return torch.multinomial(allowed, 1).squeeze(1)

    def forward(self, x: Tensor, gamma: Tensor, dim: int) -> Tensor:
        if self.kind == 'zero':
            return torch.zeros_like(x)
        if self.kind == 'another':
            return x.roll(-1, dim)
        if self.kind == 'same_spaced':
            return self._spaced_sum(x) / len(self.spaced)
        if self.kind == 'same_random':
            return x.index_select(3, self.drawn)
        if self.kind == 'others_spaced':
            return mean_of_others(self._spaced_sum(x), dim) / len(self.spaced)
        if self.kind == 'others_both':
            return mean_of_others(x + self._spaced_sum(x), dim) / (1 + len(self.spaced))
        if self.kind == 'others_largest':
            return mean_of_others(self._largest(x, gamma), dim)
        streams = x.unbind(dim)  # n of (B, T or M, C, H, W)
        n = self.streams
        others = [[streams[(i + k) % n] for k in range(1, n)] for i in range(n)]
        mixed = self._weighted(others) if self.kind == 'weighted' else self._convolved(others)
        return torch.stack(mixed, dim)

    def _spaced_sum(self, x: Tensor) -> Tensor:
        first, *more = (x.index_select(3, index) for index in self.spaced)
        return sum(more, first)

    def _largest(self, x: Tensor, gamma: Tensor) -> Tensor:
        """Of each stream, for each channel i: the mean of its strongest channels but i."""
        channels, count = gamma.shape[-1], len(self.spaced)
        order = gamma.detach().abs().topk(min(count + 1, channels), -1).indices  # (T, M, n)
        own = torch.arange(channels, device=order.device)[:, None]  # (C, 1)
        taken = (order[..., None, :] == own).to(torch.int8)  # (T, M, C, n)
        # the first n - 1 that are not i: i itself goes last, the others keep their order
        first = taken.argsort(dim=-1, stable=True)[..., :count]
        chosen = order[..., None, :].expand(*taken.shape).gather(-1, first)  # (T, M, C, n - 1)
        shape = (x.shape[0], *chosen.shape[:3], *x.shape[-2:])
        index = chosen[None, ..., None, None]
        parts = [x.gather(3, index[..., k, :, :].expand(shape)) for k in range(count)]
        return sum(parts[1:], parts[0]) / count

    def _weighted(self, others: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        weights = self.scores.softmax(1)
        return [
            sum((w * x for w, x in zip(row[1:], xs[1:], strict=True)), row[0] * xs[0])
            for row, xs in zip(weights, others, strict=True)
        ]

    def _convolved(self, others: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        weight = self.weight.to(others[0][0].dtype)  # as autocast does for convolutions
        by_channel = weight[..., None, None].unbind(1)  # n - 1 of (C, 1, 1)
        return [
            sum((w * x for w, x in zip(by_channel[1:], xs[1:], strict=True)), by_channel[0] * xs[0])
            for xs in others
        ]

    def extra_repr(self) -> str:
        return f"'{self.kind}', streams={self.streams}"


def make_stand_in(kind: str, streams: int, channels: int) -> StandIn | None:
    """The module of a kind; None where Eq. 4 itself says it, faster.

    Between two streams a weighted mean of one, and a convolution over one channel, are that
    channel: "Same with CEN" of Table 12.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind not in STAND_INS:
        raise ValueError(f"replace must be one of {STAND_INS}, got '{kind}'")
    if streams < 2 or kind == 'mean' or (streams == 2 and kind in ('weighted', 'concat')):
        return None
    return StandIn(kind, streams, channels)
