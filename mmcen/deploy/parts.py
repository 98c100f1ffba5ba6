"""Plain layers of one stream, the parts of an unrolled network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from mmcv.cnn.bricks.wrappers import Conv2d, ConvTranspose2d
from torch import Tensor, nn

from ..layers import ExchangeNorm
from ..models.generators.cen_unet import DownConv, UpConv
from ..models.multitask.heads import to_image
from .padding import PadSame


class Normalise(nn.Module):
    """A modality in the units of the sample, ``(B, C_m, H, W)``, to what the network takes, ``(B,
    C, H, W)``."""

    def __init__(self, mean: Tensor, std: Tensor, repeats: int = 1) -> None:
        super().__init__()
        self.register_buffer('mean', mean)
        self.register_buffer('std', std)
        self.mean: Tensor
        self.std: Tensor
        self.repeats = repeats

    def forward(self, x: Tensor) -> Tensor:
        return (x.repeat(1, self.repeats, 1, 1) - self.mean) / self.std


class WeightedSum(nn.Module):
    """The ensemble of one task, by scores that are fixed now."""

    def __init__(self, scores: Sequence[float]) -> None:
        super().__init__()
        self.scores = list(scores)

    def forward(self, *streams: Tensor) -> Tensor:
        total = streams[0] * self.scores[0]
        for stream, score in zip(streams[1:], self.scores[1:], strict=True):
            total = total + stream * score
        return total


class ResizeLike(nn.Module):
    """Bilinear, to the height and width of the input."""

    def __init__(self, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        return nn.functional.interpolate(
            x, like.shape[2:], mode='bilinear', align_corners=self.align_corners
        )


class Activate(nn.Module):
    """Activate the network's output as the head of the task does; images in 0..255."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        y = self.head.activate(x)
        return to_image(y) if self.head.of_images else y


class Probability(nn.Module):
    """One logit ``(B, 1, H, W)`` as a grey image ``(B, 3, H, W)`` in 0..255."""

    def forward(self, x: Tensor) -> Tensor:
        return 255 * x.sigmoid().expand(-1, 3, -1, -1)


class Exchange(nn.Module):
    """Eq. 4 for one stream, the choice of channels being fixed: its own channels where they are
    kept, the mean of the others' elsewhere.

    Args:
        replaced: boolean (C,), True where the stream takes the others'.
        own: place of the stream among the sources.
        sources: number of the streams that exchange.

    Inputs: normalised features of the sources, ``(B, C, H, W)`` each; or, after :meth:`compress`,
    those of their channels that anybody reads.
    """

    order: Tensor | None

    def __init__(self, replaced: Tensor, own: int, sources: int) -> None:
        super().__init__()
        kept, taken = (~replaced).nonzero().flatten(), replaced.nonzero().flatten()
        self.own = own
        self.channels = len(replaced)
        # which channels of each source are read
        self.reads = [kept if i == own else taken for i in range(sources)]
        self.compress([torch.arange(self.channels)] * sources)

    def compress(self, there: Sequence[Tensor]) -> None:
        """From now on source i has the channels ``there[i]`` alone, in that order."""
        other = 0 if self.own else 1
        kept = _in_order(self.reads[self.own], there[self.own])
        taken = _in_order(self.reads[other], there[other])
        # where channels are read: from one to another, or at these places
        self.spans: list[tuple[int, int] | None] = []
        for i, channels in enumerate(there):
            number = torch.full((self.channels,), -1)
            number[channels] = torch.arange(len(channels))
            place = number[kept if i == self.own else taken]
            first = int(place[0]) if len(place) else 0
            in_a_row = torch.equal(place, torch.arange(first, first + len(place)))
            self.spans.append((first, first + len(place)) if in_a_row else None)
            self.register_buffer(f'index{i}', None if in_a_row else place)
        self.joined = torch.cat([kept, taken])
        self.register_buffer('order', self.joined.argsort())

    def leave_joined(self) -> Tensor:
        """From now on the output has the channels that this returns, in that order."""
        self.order = None
        return self.joined

    def forward(self, *sources: Tensor) -> Tensor:
        read = [self._read(x, i) for i, x in enumerate(sources)]
        kept = read.pop(self.own)
        taken = read[0]
        for other in read[1:]:
            taken = taken + other
        if len(read) > 1:
            taken = taken / len(read)
        joined = torch.cat([kept, taken], 1) if len(self.reads[self.own]) else taken
        return joined if self.order is None else joined.index_select(1, self.order)

    def _read(self, x: Tensor, i: int) -> Tensor:
        """The channels of source i that are read."""
        span = self.spans[i]
        if span is None:
            return x.index_select(1, self.get_buffer(f'index{i}'))
        return x if span == (0, x.shape[1]) else x[:, span[0] : span[1]]


def _in_order(channels: Tensor, there: Tensor) -> Tensor:
    """Channels in the order in which a source has them."""
    return there[torch.isin(there, channels)]


def norm_of_stream(norm: ExchangeNorm, stream: int) -> nn.Module:
    """The stock norm that one stream has, with its values.

    Raises:
        ValueError: a norm that streams share in part.
    """
    stock: Any = norm.norm
    if hasattr(stock, 'normalise_streams'):
        raise ValueError(
            f'{type(stock).__name__} cannot be deployed: streams share a part of it. Export the '
            'model as it is, without deploying'
        )
    features = norm.num_features
    part = slice(stream * features, (stream + 1) * features)
    kind = nn.InstanceNorm2d if isinstance(stock, nn.InstanceNorm2d) else nn.BatchNorm2d
    measured = stock.running_mean is not None
    own: Any = kind(features, stock.eps, affine=True, track_running_stats=measured)
    with torch.no_grad():
        own.weight.copy_(stock.weight[part])
        own.bias.copy_(stock.bias[part])
        if measured:
            own.running_mean.copy_(stock.running_mean[part])
            own.running_var.copy_(stock.running_var[part])
    return own.eval()


def take_channels(layer: nn.Module, channels: Tensor) -> nn.Module:
    """Some channels of a layer that :func:`is_dense`, or :func:`works_by_channel`."""
    old: Any = layer
    new: Any
    if not list(layer.parameters()):
        return layer
    if isinstance(layer, nn.Conv2d):
        own = len(channels)
        inputs, groups = (own, own) if old.groups > 1 else (old.in_channels, 1)
        new = nn.Conv2d(
            inputs, own, old.kernel_size, old.stride, old.padding, old.dilation, groups,
            bias=old.bias is not None,
        )  # fmt: skip
    else:
        new = type(old)(
            len(channels), old.eps, affine=True, track_running_stats=old.running_mean is not None
        )
    state = {k: v[channels] if v.dim() else v for k, v in layer.state_dict().items()}
    new.load_state_dict(state)
    scaled = getattr(layer, 'scaled', None)
    if scaled is not None:
        rows = channels if scaled.rows is None else scaled.rows[channels]
        new.scaled = replace(scaled, scale=scaled.scale[channels], rows=rows)
    return new.eval()


def take_inputs(layer: nn.Module, channels: Tensor) -> nn.Module:
    """A layer that :func:`is_dense`, for an input with its channels in this order."""
    old: Any = layer
    new = plain_conv(old)
    with torch.no_grad():
        new.weight.copy_(old.weight[:, channels])
    scaled = getattr(layer, 'scaled', None)
    if scaled is not None:
        new.scaled = replace(scaled, columns=channels)
    return new


@dataclass(frozen=True)
class Scaled:
    """How the weight of a convolution was made of another one's: rows of it, each scaled.

    Attributes:
        conv: Convolution before its norm was folded, which several streams may share.
        scale: Factor of each row, ``(C,)``.
        rows: Numbers of the output channels, None for all.
        columns: Numbers of the input channels, None for all.
    """

    conv: nn.Module
    scale: Tensor
    rows: Tensor | None = None
    columns: Tensor | None = None


def fold_norm(conv: Any, norm: nn.Module) -> nn.Module | None:
    """Convolution with the frozen statistics and scale of the norm behind it; None where the norm
    measures its input."""
    if isinstance(norm, nn.BatchNorm2d) or getattr(norm, 'running_mean', None) is not None:
        transposed = isinstance(conv, nn.ConvTranspose2d)
        stock: Any = norm
        scale = stock.weight * torch.rsqrt(stock.running_var + stock.eps)
        shape = (1, -1, 1, 1) if transposed else (-1, 1, 1, 1)
        new = plain_conv(conv, bias=True)
        with torch.no_grad():
            own = 0 if conv.bias is None else conv.bias
            new.weight.copy_(conv.weight * scale.view(shape))
            new.bias.copy_((own - stock.running_mean) * scale + stock.bias)
        if not transposed:
            new.scaled = Scaled(conv, scale.detach())
        return new
    return None


def is_plain(layer: nn.Module) -> bool:
    """Whether it convolves as torch does: subclasses may pad, or weigh, in other ways."""
    stock = type(layer) in (nn.Conv2d, nn.ConvTranspose2d, Conv2d, ConvTranspose2d)
    return (stock or isinstance(layer, (DownConv, UpConv))) and layer.padding_mode == 'zeros'


def is_dense(layer: Any) -> bool:
    """Whether it is a convolution of all channels, each output computed on its own."""
    return type(layer) is nn.Conv2d and layer.groups == 1 and is_plain(layer)


def works_by_channel(layer: Any) -> bool:
    """Whether each of its channels comes from the same channel of its input alone."""
    if type(layer) is nn.Conv2d:
        return layer.groups == layer.in_channels == layer.out_channels and is_plain(layer)
    return isinstance(layer, (nn.InstanceNorm2d, nn.Identity, nn.ReLU, nn.ReLU6, PadSame))


def plain_conv(conv: Any, bias: bool | None = None) -> Any:
    """A stock convolution with the values of one that may be a subclass."""
    kind = nn.ConvTranspose2d if isinstance(conv, nn.ConvTranspose2d) else nn.Conv2d
    with_bias = conv.bias is not None if bias is None else bias
    more = {'output_padding': conv.output_padding} if kind is nn.ConvTranspose2d else {}
    new: Any = kind(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding,
        dilation=conv.dilation, groups=conv.groups, bias=with_bias, **more,
    )  # fmt: skip
    with torch.no_grad():
        new.weight.copy_(conv.weight)
        if with_bias and conv.bias is not None:
            new.bias.copy_(conv.bias)
    return new.eval()
