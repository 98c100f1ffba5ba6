"""RefineNetHead: decoder of the paper's main experiments, numerically equal to the official code.

RefineNet (Lin et al., CVPR 2017) goes from the coarsest feature to the finest; each stage adapts
its feature, adds the upsampled result of the coarser stage, pools in a chain and refines. It has no
norms, so folded streams run through it unchanged and share all its weights.

The official code's ReLUs work in place. A residual unit therefore adds its *rectified* input, and
checkpoints depend on it. Here the rectified value is a separate tensor, so the input does not
change.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn


def conv(
    in_channels: int, out_channels: int, kernel_size: int = 3, bias: bool = False
) -> nn.Conv2d:
    """Return a convolution that keeps height and width."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)


class ResidualBlock(nn.Module):
    """Block of a residual unit, ``relu(x) + conv2(relu(conv1(relu(x))))``: (B, C, H, W) to same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels, bias=True)
        self.conv2 = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the input's shape."""
        rectified = F.relu(x)
        # in place only on the new output of the convolution
        return rectified + self.conv2(F.relu(self.conv1(rectified), inplace=True))


def max_pool(x: Tensor) -> Tensor:
    """Max pooling of 5x5, stride 1: (B, C, H, W) to same.

    On a CPU it uses channels_last, for which torch's kernel is vectorised: four to eight times as
    fast with the copies, and equal.
    """
    if x.device.type != 'cpu' or not x.is_contiguous():  # channels_last is not contiguous
        return F.max_pool2d(x, 5, stride=1, padding=2)
    last = x.contiguous(memory_format=torch.channels_last)
    return F.max_pool2d(last, 5, stride=1, padding=2).contiguous()


class ChainedPooling(nn.Module):
    """Input plus all results of a chain of (max pool 5, conv): (B, C, H, W) to same."""

    def __init__(self, channels: int, kernel_size: int, length: int = 4) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv(channels, channels, kernel_size) for _ in range(length))

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the input's shape."""
        link = x
        for layer in self.convs:
            link = layer(max_pool(link))
            x = x + link
        return x


class RefineStage(nn.Module):
    """One level of the decoder.

    Args:
        in_channels: Channels C_i of the encoder's feature.
        width: Channels inside the stage.
        out_channels: Channels for the finer stage; None in the finest.
        has_coarser: Whether the result of a coarser stage is added.
        light_weight: Whether to use 1x1 convolutions and no residual units.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        out_channels: int | None,
        has_coarser: bool,
        light_weight: bool,
    ) -> None:
        super().__init__()
        kernel_size = 1 if light_weight else 3
        self.reduce = conv(in_channels, width, kernel_size)
        self.adapt = self._residual_unit(width, 0 if light_weight else 2)
        self.fuse = conv(width, width, kernel_size) if has_coarser else nn.Identity()
        self.pool = ChainedPooling(width, kernel_size)
        self.refine = self._residual_unit(width, 0 if light_weight else 3)
        self.project = conv(width, out_channels, kernel_size) if out_channels else nn.Identity()

    @staticmethod
    def _residual_unit(channels: int, blocks: int) -> nn.Sequential:
        return nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))

    def forward(self, x: Tensor, coarser: Tensor | None) -> Tensor:
        """Refine a feature (B, C_i, H, W) with the coarser stage's result (B, width, h, w)."""
        x = self.fuse(self.adapt(self.reduce(x)))  # (B, width, H, W)
        if coarser is not None:
            x = x + F.interpolate(coarser, x.shape[2:], mode='bilinear', align_corners=True)
        return self.project(self.refine(self.pool(F.relu(x))))


@MODELS.register_module()
class RefineNetHead(BaseDecodeHead):
    """RefineNet decoder with a 3x3 classifier.

    Args:
        in_channels: Channels of the encoder's features, finest first.
        channels: Width of the decoder; the coarsest stage is twice as wide. None takes the finest
            feature's channels: the official 256 on ResNet-50 and deeper, 64 on ResNet-18 and 34.
        in_index: Indices of the encoder's features, finest first.
        dropout_ratio: Dropout of single values (not of whole maps), on the two coarsest features
            and before the classifier.
        light_weight: Light-Weight RefineNet (Nekrasov et al., BMVC 2018): 1x1 instead of 3x3 convs
            and no residual units, whose removal cost its authors no accuracy. A twentieth of the
            parameters. The classifier remains 3x3.
        kwargs: ``num_classes`` and other arguments of mmseg's ``BaseDecodeHead``.

    Input: features ``(T*M*B, C_i, H_i, W_i)``. Output: logits ``(T*M*B, K, H_0, W_0)``, as large as
    the finest feature. Convs start as PyTorch makes them, as in the official code.

    Raises:
        ValueError: If there are fewer than two features, or ``norm_cfg``, ``conv_cfg`` or
            ``act_cfg`` is given, which the decoder does not use.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (256, 512, 1024, 2048),
        channels: int | None = None,
        *,
        in_index: Sequence[int] = (0, 1, 2, 3),
        dropout_ratio: float = 0.5,
        light_weight: bool = False,
        init_cfg: dict | list[dict] | None = None,
        **kwargs: Any,
    ) -> None:
        for name in ('norm_cfg', 'conv_cfg', 'act_cfg'):
            if kwargs.get(name) is not None:
                raise ValueError(
                    f'RefineNetHead has plain convs and ReLUs, got {name}={kwargs[name]}: '
                    'leave it out'
                )
        if len(in_channels) < 2:
            raise ValueError(
                f'RefineNetHead joins two features or more, got in_channels={in_channels}: '
                'name one per stride'
            )
        super().__init__(
            in_channels,
            channels or in_channels[0],
            in_index=in_index,
            input_transform='multiple_select',
            dropout_ratio=dropout_ratio,
            init_cfg=init_cfg,
            **kwargs,
        )
        last = len(in_channels) - 1
        self.stages = nn.ModuleList(
            RefineStage(
                in_channels[i],
                width=self.channels * (2 if i == last else 1),
                out_channels=self.channels if i > 0 else None,
                has_coarser=i < last,
                light_weight=light_weight,
            )
            for i in range(len(in_channels))
        )
        self.conv_seg = conv(self.channels, self.out_channels, bias=True)
        self.dropout = nn.Dropout(dropout_ratio)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return logits of the finest feature's size."""
        result = None
        coarse_to_fine = zip(
            reversed(self.stages), reversed(self._transform_inputs(inputs)), strict=True
        )
        for level, (stage, feature) in enumerate(coarse_to_fine):
            result = stage(self.dropout(feature) if level < 2 else feature, result)
        return self.cls_seg(result)
