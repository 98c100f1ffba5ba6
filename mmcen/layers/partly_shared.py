"""A norm of which the streams share one half: Table 11."""

from typing import Any

import torch
from torch import Tensor, nn

SHARED = (None, 'affine', 'statistics')


class PartlySharedNorm(nn.Module):
    """Private statistics with one gamma and beta for all streams, or the other way round.

    Args:
        norm_type: stock norm, which normalises here and has no scale.
        streams: S, of the grid.
        channels: C.
        shared: ``'affine'``: gamma and beta, C each, are all streams'; ``'statistics'``: mean and
            variance are. Instance norms measure every frame of every stream by itself, in training
            as well; what they can share is the running statistics.
        kwargs: of the stock norm.

    Input and output ``(B, S*C, H, W)``, as the stock norm of private streams has them.
    """

    running_mean = None  # no frozen statistics that a norm around this one could fold into a scale

    def __init__(
        self, norm_type: type[nn.Module], streams: int, channels: int, shared: str, **kwargs: Any
    ) -> None:
        super().__init__()
        self.channels = channels
        private, common = streams * channels, channels
        measured, scaled = (private, common) if shared == 'affine' else (common, private)
        self.statistics: Any = norm_type(measured, **{**kwargs, 'affine': False})
        self.weight = nn.Parameter(torch.ones(scaled))
        self.bias = nn.Parameter(torch.zeros(scaled))

    def forward(self, x: Tensor) -> Tensor:
        features = self.statistics.num_features
        y = self.statistics(x.reshape(-1, features, *x.shape[2:]))
        y = y.reshape(x.shape[0], -1, self.channels, *x.shape[2:])  # (B, S, C, H, W)
        shape = (-1, self.channels, 1, 1)
        y = torch.addcmul(self.bias.view(shape), y, self.weight.view(shape))
        return y.reshape(x.shape).to(x.dtype)
