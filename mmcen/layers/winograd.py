"""Compute 4x4 convolutions of stride 1 with a quarter of the multiplications, on a CPU.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016): tiles of the input
and the kernels are transformed, multiplied value by value, and the sums over the channels are
transformed back. F(3, 4) takes 6 products for 3 outputs, where a plain convolution takes 12, and in
two dimensions 36 for 144. The last wide layer of pix2pix's discriminator is such a convolution; it
takes a third of a training step.

The points are those with the smallest errors, 1.4 times those of a sum in float32, product by
product. With (0, 1, -1, 2, -2), as common for 3x3 kernels, they are 2.1 times those.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW_CHANNELS = 128  # below, transforms take longer than the products that they save
MANY_PIXELS = 2**14  # of a batch; above, transforms take much memory
TILE, TAPS = 3, 4  # outputs of a tile and size of the kernel, in one dimension
WINDOW = TILE + TAPS - 1  # inputs of a tile, and its products
POINTS = (0.0, 1.0, -1.0, 2.0, -0.5)  # and infinity


def make_transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Return the matrices of F(3x3, 4x4): of inputs (36, 36), kernels (36, 16), outputs (9, 36).

    A convolution is the transpose of a product of polynomials, which is computed from their values
    at points (the Toom-Cook algorithm).
    """

    def values(terms: int) -> Tensor:
        """Matrix from the coefficients of a polynomial to its values, (6, terms)."""
        powers = torch.arange(terms)
        at = [torch.tensor(point, dtype=torch.float64) ** powers for point in POINTS]
        return torch.stack([*at, (powers == terms - 1).double()])  # infinity: the last coefficient

    inputs = torch.linalg.inv(values(WINDOW)).t()
    # powers of two between inputs and kernels, so that neither has large values
    scale = 2 ** inputs.abs().amax(1, keepdim=True).log2().round()
    one_dimension = inputs / scale, values(TAPS) * scale, values(TILE).t()
    inputs, kernels, outputs = (torch.kron(one, one).float() for one in one_dimension)
    return inputs, kernels, outputs


INPUTS, KERNELS, OUTPUTS = make_transforms()


def winograd_conv(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve with 4x4 kernels, stride 1 and padding 1, without a bias.

    Args:
        x: ``(B, C, H, W)``.
        weight: ``(C', C, 4, 4)``.

    Returns:
        ``(B, C', H - 1, W - 1)``.
    """
    batch, channels, height, width = x.shape
    down, across = -(-(height - 1) // TILE), -(-(width - 1) // TILE)  # numbers of tiles
    padding = (1, TILE * across + 2 - width, 1, TILE * down + 2 - height)
    windows = F.pad(x, padding).unfold(2, WINDOW, TILE).unfold(3, WINDOW, TILE)
    windows = windows.permute(4, 5, 1, 0, 2, 3).reshape(WINDOW**2, -1)  # (36, C*B*tiles)
    of_inputs = (INPUTS.to(x.dtype) @ windows).unflatten(1, (channels, -1))
    flat = weight.reshape(-1, TAPS**2).t()  # (16, C'*C)
    of_kernels = (KERNELS.to(x.dtype) @ flat).unflatten(1, weight.shape[:2])
    products = of_kernels @ of_inputs  # (36, C', B*tiles)
    tiles = OUTPUTS.to(x.dtype) @ products.flatten(1)
    tiles = tiles.view(TILE, TILE, -1, batch, down, across)
    y = tiles.permute(3, 2, 4, 0, 5, 1).reshape(batch, -1, TILE * down, TILE * across)
    return y[:, :, : height - 1, : width - 1]


class WinogradConv2d(nn.Conv2d):
    """Convolution of 4x4, stride 1, padding 1; by :func:`winograd_conv` if that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        if not self._saves(x):
            return super().forward(x)
        y = winograd_conv(x, self.weight)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)

    def _saves(self, x: Tensor) -> bool:
        if x.device.type != 'cpu' or x.dim() != 4 or torch.is_autocast_enabled('cpu'):
            return False
        single = x.dtype == self.weight.dtype == torch.float32
        return single and x.numel() // x.shape[1] <= MANY_PIXELS


def save_multiplications(module: nn.Module) -> None:
    """Replace wide convolutions of 4x4 and stride 1 in a module by :class:`WinogradConv2d`.

    The parameters are the same tensors.
    """
    for name, child in list(module.named_children()):
        if type(child) is nn.Conv2d and _fits(child):
            bias = child.bias is not None
            conv = WinogradConv2d(child.in_channels, child.out_channels, TAPS, 1, 1, bias=bias)
            conv.weight, conv.bias = child.weight, child.bias
            setattr(module, name, conv)
        else:
            save_multiplications(child)


def _fits(conv: nn.Conv2d) -> bool:
    sizes = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
    wide = min(conv.in_channels, conv.out_channels) >= FEW_CHANNELS
    return wide and conv.padding_mode == 'zeros' and sizes == ((4, 4), (1, 1), (1, 1), (1, 1), 1)
