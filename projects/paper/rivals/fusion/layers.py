"""Fusion by concatenation, average, self-attention and conditional norms (appendix A)."""

from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmcen.core import ExchangeNorm, StreamGrid

from .base import Fusion


def _pass_first(conv: nn.Conv2d, scale: float = 1.0) -> None:
    """Make a convolution return its first channels."""
    nn.init.dirac_(conv.weight)
    nn.init.zeros_(conv.get_parameter('bias'))
    with torch.no_grad():
        conv.weight.mul_(scale)


@MODELS.register_module()
class ConcatFusion(Fusion):
    """1x1 convolution of the stacked channels, M*C to C.

    Args:
        identity: Whether to start as the identity on the stream's own features, so that pretrained
            stages behind this layer get the features that they were trained on; otherwise
            PyTorch's initialisation.
        args, kwargs: Arguments of :class:`Fusion`.
    """

    def __init__(self, channels: int, *args: Any, identity: bool = False, **kwargs: Any) -> None:
        super().__init__(channels, *args, **kwargs)
        self.conv = nn.Conv2d(self.grid.modalities * channels, channels, 1)
        self.identity = identity
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise again; mmengine calls it after an ``init_cfg`` for all convolutions."""
        if self.identity:
            _pass_first(self.conv)

    def fuse(self, group: Tensor) -> Tensor:
        return self.conv(group.flatten(1, 2))


@MODELS.register_module()
class AverageFusion(Fusion):
    """Mean of the streams, without parameters."""

    def fuse(self, group: Tensor) -> Tensor:
        return group.mean(1)


@MODELS.register_module()
class SelfAttentionFusion(Fusion):
    """SSMA block (Valada et al., IJCV 2020): the stacked channels are weighted by a bottleneck on
    themselves, then reduced.

    Args:
        ratio: Channels of a stream to those of the bottleneck, eta.
        identity: Identity of :class:`ConcatFusion`.
        args, kwargs: Arguments of :class:`Fusion`.
    """

    def __init__(
        self,
        channels: int,
        *args: Any,
        ratio: int = 16,
        identity: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(channels, *args, **kwargs)
        stacked, narrow = self.grid.modalities * channels, max(1, channels // ratio)
        self.squeeze = nn.Conv2d(stacked, narrow, 3, padding=1)
        self.excite = nn.Conv2d(narrow, stacked, 3, padding=1)
        self.reduce = nn.Conv2d(stacked, channels, 3, padding=1)
        self.identity = identity
        self.init_weights()

    def init_weights(self) -> None:
        """As that of :class:`ConcatFusion`."""
        if self.identity:
            nn.init.zeros_(self.excite.weight)
            nn.init.zeros_(self.excite.get_parameter('bias'))
            _pass_first(self.reduce, 2.0)  # of weights of one half

    def fuse(self, group: Tensor) -> Tensor:
        x = group.flatten(1, 2)  # (N, M*C, H, W)
        weights = self.excite(self.squeeze(x).relu()).sigmoid()
        return self.reduce(weights * x)


@MODELS.register_module()
class CBNFusion(Fusion):
    """Conditional batch normalisation (de Vries et al., NeurIPS 2017): the other streams, pooled,
    change gamma and beta of a norm of the stream's own.

    Args:
        ratio: Channels to those of the hidden layer.
        args, kwargs: Arguments of :class:`Fusion`.
    """

    def __init__(self, channels: int, *args: Any, ratio: int = 16, **kwargs: Any) -> None:
        super().__init__(channels, *args, **kwargs)
        others = (self.grid.modalities - 1) * channels
        streams = self.grid.tasks if self.merge else self.grid.size
        self.norm = ExchangeNorm(nn.BatchNorm2d(channels), StreamGrid(1, streams))
        self.hidden = nn.Linear(others, max(1, channels // ratio))
        self.change = nn.Linear(self.hidden.out_features, 2 * channels)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def fuse(self, group: Tensor) -> Tensor:
        own, others = group[:, 0], group[:, 1:]
        pooled = others.mean((-2, -1)).flatten(1)  # (N, (M-1)*C)
        gamma, beta = self.change(self.hidden(pooled).relu())[..., None, None].chunk(2, 1)
        return torch.addcmul(beta, self.norm(own.contiguous()), 1 + gamma)
