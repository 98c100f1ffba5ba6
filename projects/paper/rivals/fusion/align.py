"""Fusion by alignment: streams stay separate, and a loss makes their features similar."""

from itertools import combinations
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from .base import Fusion

KERNELS = 11


@MODELS.register_module()
class AlignFusion(Fusion):
    """Two convolutions for each stream, and the multi-kernel MMD between their outputs.

    See Wang et al., ECCV 2016; there are 11 Gaussian kernels. Samples of the distributions are
    cells of a 4x4 grid on the features of each frame. The model reads the loss of a training pass
    from ``loss``, see :func:`fusion_losses`.

    Args:
        channels, grid: Arguments of :class:`Fusion`.
        weight: Weight of the loss.
        kwargs: Arguments of :class:`Fusion`. Streams do not merge. The commonly used setting
            is ``convs='private'`` of the model.

    Raises:
        ValueError: If ``merge`` is True.
    """

    def __init__(self, channels: int, *args: Any, weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(channels, *args, **kwargs)
        if self.merge:
            raise ValueError(
                "AlignFusion keeps all streams: set merge=False, and convs='private' of the model "
                'for two complete networks'
            )
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 1)
        self.weight = weight
        self.loss: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x).relu())
        self.loss = None
        if self.training:
            # of a copy: pooling keeps its input, and activations behind this layer work in place
            cells = nn.functional.adaptive_avg_pool2d(y.float().clone(), 4)
            streams = self.grid.unfold(cells).flatten(-2)  # (B, T, M, C, 16)
            samples = [s.permute(0, 1, 3, 2).flatten(0, 2) for s in streams.unbind(2)]
            pairs = list(combinations(samples, 2))
            total = torch.stack([discrepancy(a, b) for a, b in pairs]).mean()
            self.loss = self.weight * total
        return y


def discrepancy(a: Tensor, b: Tensor, kernels: int = KERNELS) -> Tensor:
    """Squared maximum mean discrepancy, biased, with a mean of Gaussian kernels.

    Args:
        a, b: Samples, ``(N, C)`` each.
        kernels: Number of the bandwidths 2**-5 to 2**5 times the mean squared distance.
    """
    both = torch.cat([a, b])
    distance = (both[:, None] - both[None]).square().sum(-1)  # (2N, 2N)
    width = distance.detach().mean().clamp(min=1e-12)
    powers = torch.arange(kernels, device=a.device) - kernels // 2
    kernel = torch.exp(-distance[..., None] / (width * 2.0**powers)).mean(-1)
    n = len(a)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def fusion_losses(model: nn.Module) -> dict[str, Tensor]:
    """Take the losses of a model's alignments, of its last pass in training; nothing where there
    are none."""
    layers = [m for m in model.modules() if isinstance(m, AlignFusion) and m.loss is not None]
    losses: list[Any] = [layer.loss for layer in layers]
    for layer in layers:
        layer.loss = None  # it holds on to the graph
    return {'fusion.loss_align': torch.stack(losses).sum()} if losses else {}
