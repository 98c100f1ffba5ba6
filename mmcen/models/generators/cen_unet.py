"""The U-Net of pix2pix over a stream grid: one generator for all four settings of the paper."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ...core import ExchangeNorm, StreamGrid, convert_norm
from ...layers.per_task import PerTask, check_groups

FEW_PIXELS = 256


def of_pixels(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map all pixels (N, C, P) to (N, C', P) by one product with a weight (C', C).

    A product of three dimensions may copy the weight for each frame when no gradients are kept.
    """
    pixels = x.transpose(1, 2).flatten(0, 1)  # (N*P, C)
    y = nn.functional.linear(pixels, weight, bias)
    return y.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


class DownConv(nn.Conv2d):
    """Convolution of 4x4, stride 2, padding 1; a matrix product for few pixels.

    For few pixels, most of the time is spent on reading the weights. oneDNN would reorder them, and
    use scratch memory of up to 64 MiB for each frame for their gradients.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Halve height and width."""
        height, width = x.shape[-2:]
        if height * width > FEW_PIXELS:
            return super().forward(x)
        patches = nn.functional.unfold(x, 4, padding=1, stride=2)  # (N, C*16, h*w)
        y = of_pixels(patches, self.weight.flatten(1), self.bias)
        return y.unflatten(2, (height // 2, width // 2))


class UpConv(nn.ConvTranspose2d):
    """Transposed convolution of 4x4, stride 2, padding 1; a matrix product for few pixels."""

    bias: Tensor

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Double height and width."""
        height, width = x.shape[-2:]
        if height * width > FEW_PIXELS:
            return super().forward(x, output_size)
        patches = of_pixels(x.flatten(2), self.weight.flatten(1).t())  # (N, C'*16, h*w)
        y = nn.functional.fold(patches, (2 * height, 2 * width), 4, padding=1, stride=2)
        return y + self.bias.view(-1, 1, 1).to(y.dtype)  # autocast casts no bias


@MODELS.register_module()
class CENUNetGenerator(BaseModule):
    """U-Net-256 of Isola et al. (pix2pix) for T x M streams: private norms, shared convolutions.

    Every layer runs once on all streams, which live in the batch. The encoder exchanges channels
    along the modalities of a task, the decoder along the tasks of a modality (sections 3.2 to 3.5).
    As in the official code, the first and the last convolution of the encoder and the output have
    no norm.

    Args:
        inputs: Input of each stream, T rows of M numbers below D: ``[[0, 1]]`` is the fusion of
            two, ``[[0], [0]]`` two tasks from one input, ``[[0, 1], [2, 0], [1, 2]]`` a cycle.
        in_channels: Channels C of every input.
        out_channels: Channels of the output, one number for all tasks or one for each.
        downs: Number N of stride-2 convolutions; input sizes are multiples of 2**N. 8 for 256 x
            256.
        base_channels: Channels after the first convolution; doubled after each, up to 8 times.
        dropout_ratio: Dropout of the first three decoder layers, as in pix2pix.
        encoder: Dict of ``groups``, the weights that tasks use: ``'shared'``, ``'task'`` (one copy
            each) or the number of a copy for each task; and ``exchange`` (bool). Default: shared,
            with exchange.
        decoder: Dict as for the encoder; by default shared for one task, else one copy for each.
        norm_cfg: Config of a norm, which becomes private to each stream. A CEN norm also takes
            options of the exchange; ``threshold`` is theta of Eq. 4.
        kwargs: ``init_cfg``, as in mmengine; default normal(0, 0.02) for convolutions, as pix2pix.

    Input ``(B, D, C, H, W)``. Output: T tensors ``(B, M, C', H, W)``, before any activation.

    Raises:
        ValueError: If rows of ``inputs`` differ in length, sizes cannot be halved ``downs`` times,
            or a setting is unknown.
    """

    def __init__(
        self,
        inputs: Sequence[Sequence[int]] = ((0, 1),),
        in_channels: int = 3,
        out_channels: int | Sequence[int] = 3,
        downs: int = 8,
        base_channels: int = 64,
        dropout_ratio: float = 0.5,
        encoder: Mapping[str, Any] | None = None,
        decoder: Mapping[str, Any] | None = None,
        norm_cfg: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        normal = dict(type='Normal', layer=['Conv2d', 'ConvTranspose2d'], std=0.02)
        super().__init__(**{'init_cfg': normal, **kwargs})
        if len({len(row) for row in inputs}) != 1 or downs < 3:
            raise ValueError(
                f'inputs {inputs} must be rows of equal length, one for each task, and downs '
                f'{downs} at least 3'
            )
        self.grid = StreamGrid(tasks=len(inputs), modalities=len(inputs[0]))
        self.downs = downs
        self.domains = 1 + max(max(row) for row in inputs)
        self.inputs = [number for row in inputs for number in row]  # of the T*M streams
        # on the device: a copy from the host in each step would wait for it
        self.register_buffer('of_streams', torch.tensor(self.inputs), persistent=False)
        self.of_streams: Tensor
        self.out_channels = self._channels_by_task(out_channels)
        self.norm_cfg = dict(norm_cfg or dict(type='CENIN', threshold=1e-2))
        widths = [base_channels * min(2**i, 8) for i in range(downs)]
        self._make_encoder(in_channels, widths, {'groups': 'shared', **(encoder or {})})
        groups = 'shared' if self.grid.tasks == 1 else 'task'
        self._make_decoder(widths, {'groups': groups, **(decoder or {})}, dropout_ratio)

    @property
    def out_grid(self) -> StreamGrid:
        """The grid of the decoder."""
        return self.grid

    def _channels_by_task(self, channels: int | Sequence[int]) -> list[int]:
        tasks = self.grid.tasks
        by_task = [channels] * tasks if isinstance(channels, int) else list(channels)
        if len(by_task) != tasks:
            raise ValueError(f'out_channels {by_task} is not one number per task, of {tasks}')
        return by_task

    def _make_encoder(self, channels: int, widths: list[int], part: Mapping[str, Any]) -> None:
        groups = check_groups(part['groups'], self.grid.tasks)
        self.down_convs, self.down_norms = nn.ModuleList(), nn.ModuleList()
        for i, width in enumerate(widths):
            self.down_convs.append(PerTask(_maker(DownConv, channels, width), self.grid, groups))
            with_norm = 0 < i < len(widths) - 1
            norm = self._norm(width, self.grid, 'modalities', part) if with_norm else nn.Identity()
            self.down_norms.append(norm)
            channels = width
        # streams with the same input are equal up to the first private norm, after two convs
        self.common = max(groups) == 0 and self.domains < self.grid.size

    def _make_decoder(self, widths: list[int], part: Mapping[str, Any], dropout: float) -> None:
        grid = self.out_grid
        groups = check_groups(part['groups'], grid.tasks)
        self.up_convs, self.up_norms = nn.ModuleList(), nn.ModuleList()
        self.dropouts = nn.ModuleList()
        channels = widths[-1]
        for i, width in enumerate(widths[-2::-1]):
            self.up_convs.append(PerTask(_maker(UpConv, channels, width), grid, groups))
            self.up_norms.append(self._norm(width, grid, 'tasks', part))
            self.dropouts.append(nn.Dropout(dropout) if i < 3 and dropout else nn.Identity())
            channels = 2 * width  # with the skip connection
        if len(set(self.out_channels)) > 1:
            groups = tuple(range(grid.tasks))
        sizes = iter([self.out_channels[groups.index(g)] for g in range(max(groups) + 1)])
        self.output = PerTask(lambda: UpConv(channels, next(sizes), 4, 2, 1), grid, groups)

    def _norm(
        self, width: int, grid: StreamGrid, axis: str, part: Mapping[str, Any]
    ) -> ExchangeNorm:
        stock = build_norm_layer(self.norm_cfg, width)[1]
        exchanges = part.get('exchange', True) and getattr(stock, 'exchange', True)
        options = dict(threshold=1e-2) if exchanges and grid.length(axis) > 1 else None
        return convert_norm(stock, grid, axis, options)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute T outputs ``(B, M, C', H, W)`` of inputs ``(B, D, C, H, W)``."""
        self._check(x)
        if not self.grid.is_whole:
            x = torch.stack([x[:, i] for i in self._domains_present()], 1)
        y = x.flatten(0, 1) if self.common else self._to_streams(x)
        return tuple(self.output.by_task(self._decode(self._encode(y, self.common))))

    def _decode(self, skips: list[Tensor]) -> Tensor:
        """Decode features of the encoder, finest first, to the input of the output layer."""
        y = skips.pop()
        for conv, norm, dropout in zip(self.up_convs, self.up_norms, self.dropouts, strict=True):
            y = dropout(norm(conv(y.relu_())))
            y = torch.cat([y, skips.pop()], 1)  # (T*M*B, 2C, h, w)
        return y.relu_()

    def _encode(self, y: Tensor, common: bool = False) -> list[Tensor]:
        """Encode streams to features of all stages, ``(T*M*B, C', h, w)`` each, finest first.

        Args:
            y: Streams; with ``common``, the domains that they share at first.
            common: Whether streams with the same input are computed once at first.
        """
        features: list[Tensor] = []
        for i, (conv, norm) in enumerate(zip(self.down_convs, self.down_norms, strict=True)):
            y = conv(y)
            if common and i == 1:
                y = self._part(y)
            y = norm(y)
            if i + 1 < self.downs:  # in place: skip connections carry the activated features
                y = nn.functional.leaky_relu(y, 0.2, inplace=True)
            features.append(self._part(y) if common and i == 0 else y)
        return features

    def _part(self, y: Tensor) -> Tensor:
        """Select features of streams, ``(T*M*B, ...)``, from those of inputs, ``(B*D, ...)``."""
        return self._to_streams(y.unflatten(0, (-1, len(self._domains_present()))))

    def _to_streams(self, x: Tensor) -> Tensor:
        """Give each stream its input: ``(B, D, ...)``, D domains present, to ``(T*M*B, ...)``."""
        numbers = self.of_streams
        if not self.grid.is_whole:
            domains = self._domains_present()
            places = [domains.index(self.inputs[s]) for s in self.grid.streams]
            numbers = torch.tensor(places, device=x.device)
        streams = x.index_select(1, numbers)  # (B, T*M, ...)
        return self.grid.fold(streams.unflatten(1, self.grid.shape))

    def _domains_present(self) -> list[int]:
        """Return the indices of the inputs of the present streams, ascending."""
        if self.grid.is_whole:
            return list(range(self.domains))
        return sorted({self.inputs[s] for s in self.grid.streams})

    def _check(self, x: Tensor) -> None:
        factor = 2**self.downs
        if x.dim() != 5 or x.shape[1] != self.domains:
            raise ValueError(f'expected (B, {self.domains}, C, H, W), got {tuple(x.shape)}')
        if x.shape[-2] % factor or x.shape[-1] % factor:
            raise ValueError(
                f'inputs of {x.shape[-2]}x{x.shape[-1]} pixels cannot be halved {self.downs} '
                f'times: crop or resize to multiples of {factor}, or lower downs of the generator'
            )


def _maker(kind: type[nn.Module], channels: int, width: int) -> Callable[[], nn.Module]:
    return lambda: kind(channels, width, 4, 2, 1)
