"""Norms of which streams share one half: Table 11."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

SHARED = ('affine', 'statistics')


class PartlySharedNorm(nn.Module):
    """Private statistics with shared gamma and beta, or vice versa.

    It is a norm for all streams of an :class:`~mmcen.core.ExchangeNorm`.

    Args:
        norm_type: Class of the stock norm, used without scaling factors.
        num_features: Number of channels C.
        shared: ``'affine'``: gamma and beta, C each, are shared; ``'statistics'``: mean and
            variance are shared. Instance norms use the statistics of every frame and stream, also
            in training; they can share running statistics only.
        kwargs: Arguments of the stock norm.

    Raises:
        ValueError: If ``shared`` is unknown.
    """

    running_mean = None  # its statistics are those of ``statistics``

    def __init__(
        self, norm_type: type[nn.Module], num_features: int, shared: str, **kwargs: Any
    ) -> None:
        super().__init__()
        if shared not in SHARED:
            raise ValueError(f"shared must be one of {SHARED} or None, got '{shared}'")
        self.num_features, self.shared = num_features, shared
        self.make = lambda size: norm_type(size, **{**kwargs, 'affine': False})
        self.widen(1)

    def widen(self, streams: int) -> None:
        """Initialise the values for a number of streams."""
        private, common = streams * self.num_features, self.num_features
        affine = self.shared == 'affine'
        measured, scaled = (private, common) if affine else (common, private)
        self.statistics: Any = self.make(measured)
        self.weight = nn.Parameter(torch.ones(scaled))
        self.bias = nn.Parameter(torch.zeros(scaled))

    def normalise_streams(self, x: Tensor, streams: Sequence[int]) -> Tensor:
        """Normalise folded features ``(S*B, C, ...)`` of all S streams."""
        by_stream = x.unflatten(0, (len(streams), -1)).transpose(0, 1)  # (B, S, C, ...)
        joined = by_stream.reshape(-1, self.statistics.num_features, *x.shape[2:])
        y = self.statistics(joined).reshape(by_stream.shape)
        shape = (-1, self.num_features, *(1 for _ in x.shape[2:]))
        y = torch.addcmul(self.bias.view(shape), y, self.weight.view(shape))
        return y.transpose(0, 1).flatten(0, 1).to(x.dtype)
