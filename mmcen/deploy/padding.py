"""Convolutions padded as by TensorFlow, "SAME", as a padding and a stock convolution.

mmcv's and timm's ask for the output size and round it up. Written as a remainder instead, the sizes
of a network that halves its input five times stay short enough for ``torch.export`` to reason with,
and norms can be folded into the convolution behind.
"""

from typing import Any

from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmseg.models.backbones.timm_backbone import timm
from torch import Tensor, nn

KINDS = (Conv2dAdaptivePadding, *((timm.layers.Conv2dSame,) if timm else ()))


class PadSame(nn.Module):
    """Zeros around the input of a convolution, so that its output is as large as the input over the
    stride, rounded up; one more below and to the right where they are odd in number.

    Args:
        windows: (height, width) of what the convolution looks at, dilation included.
        strides: of the convolution, not larger than the windows.

    Input ``(B, C, H, W)``, output ``(B, C, H', W')``.
    """

    def __init__(self, windows: tuple[int, int], strides: tuple[int, int]) -> None:
        super().__init__()
        self.windows, self.strides = windows, strides

    def forward(self, x: Tensor) -> Tensor:
        top, bottom = self._around(x.shape[2], 0)
        left, right = self._around(x.shape[3], 1)
        return nn.functional.pad(x, (left, right, top, bottom))

    def _around(self, size: int, axis: int) -> tuple[int, int]:
        total = self.windows[axis] - self.strides[axis] + (-size) % self.strides[axis]
        return total // 2, total - total // 2


def same_padding(conv: nn.Module) -> PadSame | None:
    """The padding of a convolution that pads as TensorFlow does; None of another layer, and where
    strides are larger than windows."""
    if type(conv) not in KINDS:
        return None
    layer: Any = conv
    height, width = (
        dilation * (kernel - 1) + 1
        for kernel, dilation in zip(layer.kernel_size, layer.dilation, strict=True)
    )
    if height < layer.stride[0] or width < layer.stride[1]:
        return None
    return PadSame((height, width), layer.stride)
