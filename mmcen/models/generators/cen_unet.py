"""The U-Net of pix2pix over a stream grid: one generator for all four settings of the paper."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule, ModuleDict
from mmengine.registry import MODELS
from torch import Tensor, nn

from ...core import exchange_norms
from ...core.grid import StreamGrid
from ...layers import (
    LearnedPerTask,
    PerTask,
    SharingPolicy,
    set_grid,
    single_stream,
    unshare,
)
from ...layers.fusion import check_merge, check_no_exchange, check_places, first_modality
from ...layers.per_task import check_groups

Groups = Sequence[int] | str
FEW_PIXELS = 256


class DownConv(nn.Conv2d):
    """Convolution of 4x4, stride 2, padding 1; a plain matrix product where pixels are few.

    There, as in :class:`UpConv` back, almost all of the work is reading the weights. oneDNN would
    reorder them, and take scratch memory of up to 64 MiB a frame for their gradients.
    """

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height * width > FEW_PIXELS:
            return super().forward(x)
        patches = nn.functional.unfold(x, 4, padding=1, stride=2)  # (N, C*16, h*w)
        y = nn.functional.linear(patches.transpose(1, 2), self.weight.flatten(1), self.bias)
        return y.transpose(1, 2).unflatten(2, (height // 2, width // 2))


class UpConv(nn.ConvTranspose2d):
    """Transposed convolution of 4x4, stride 2, padding 1; likewise."""

    bias: Tensor

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        height, width = x.shape[-2:]
        if height * width > FEW_PIXELS:
            return super().forward(x, output_size)
        patches = self.weight.flatten(1).t() @ x.flatten(2)  # (N, C'*16, h*w)
        y = nn.functional.fold(patches, (2 * height, 2 * width), 4, padding=1, stride=2)
        return y + self.bias.view(-1, 1, 1)


@MODELS.register_module()
class CENUNetGenerator(BaseModule):
    """U-Net-256 of Isola et al. (pix2pix) for T x M streams: private norms, shared convolutions.

    Every layer runs once on all streams, which live in the batch. The encoder exchanges channels
    along the modalities of a task, the decoder along the tasks of a modality (sections 3.2 to 3.5).
    As in the official code the first and the last convolution of the encoder and the output carry
    no norm.

    Args:
        inputs: the input of each stream, T rows of M numbers below D: ``[[0, 1]]`` is fusion of
            two, ``[[0], [0]]`` two tasks from one input, ``[[0, 1], [2, 0], [1, 2]]`` a cycle.
        in_channels: C of every input.
        out_channels: channels of the output, for all tasks or for each.
        downs: N, number of stride-2 convolutions; inputs are multiples of 2**N. 8 for 256 x 256.
        base_channels: channels after the first convolution; doubled after each, up to 8 times.
        dropout_ratio: of the first three decoder layers, as in pix2pix.
        encoder, decoder: which weights the tasks use, and whether channels are exchanged:
            ``groups``: ``'shared'``, ``'task'`` (one copy each) or a copy's number per task;
            ``exchange``: bool. Defaults: shared encoder; shared decoder for one task, else one per
            task; both exchange.
            The encoder's ``fusion`` is a rival in place of exchange (Table 4): config of a
            :class:`~mmcen.layers.fusion.Fusion` with ``after``, the layers that it follows, of 1 to
            N. With ``merge=True`` streams have convolutions of their own up to the last of them,
            and one stream goes on; skip connections of earlier layers are the first stream's.
            The encoder's ``groups='learned'`` lets each task choose among the ``copies`` (2) of
            every layer, see below.
        norm_cfg: a CEN norm: private to each stream. ``threshold`` is theta of Eq. 4. Of a stock
            norm one layer serves all streams of a shared or learned encoder; give
            ``decoder_norm_cfg`` then.
        convs: ``'shared'``, or ``'private'`` for copies of all of them for each stream, of one task
            ("unshared" of Table 10).
        decoder_norm_cfg: of the decoder; a stock norm, such as ``dict(type='IN2d',
            affine=True)``, is shared by the streams that share its convolution. Default:
            ``norm_cfg``.
        init_cfg: as in mmengine; default normal(0, 0.02) for convolutions, as pix2pix.

    Input ``(B, D, C, H, W)``. Output: T tensors ``(B, M, C', H, W)``, before any activation; with
    merged streams ``(B, 1, C', H, W)``.

    AdaShare of Table 8 is ``encoder=dict(groups='learned', copies=2)``, stock norms in the encoder
    and a decoder as ever; ``sharing`` beside ``copies`` is the weight of its sharing loss. Where it
    chooses to run or to skip a residual block, our tasks choose which copy of a layer they run: the
    layers of a U-Net change the resolution and cannot be skipped. So its sparsity loss, on skips,
    has no place here. The choices are :class:`~mmcen.layers.SharingPolicy`, in ``policy`` unless
    the model around the network has taken it over.

    Raises:
        ValueError: rows of ``inputs`` differ in length, sizes that cannot be halved ``downs``
            times, unknown settings, exchange with shared norms.
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
        decoder_norm_cfg: Mapping[str, Any] | None = None,
        convs: str = 'shared',
        init_cfg: dict | None = None,
    ) -> None:
        init_cfg = init_cfg or dict(type='Normal', layer=['Conv2d', 'ConvTranspose2d'], std=0.02)
        super().__init__(init_cfg)
        if len({len(row) for row in inputs}) != 1 or downs < 3:
            raise ValueError(
                f'inputs {inputs} must be rows of equal length, one for each task, and downs '
                f'{downs} at least 3'
            )
        self.grid = StreamGrid(tasks=len(inputs), modalities=len(inputs[0]))
        self.downs = downs
        self.domains = 1 + max(max(row) for row in inputs)
        self.register_buffer('inputs', torch.tensor(inputs).flatten(), persistent=False)  # (T*M,)
        tasks = self.grid.tasks
        encoder = {'groups': 'shared', 'exchange': True, **(encoder or {})}
        decoder = {
            'groups': 'shared' if tasks == 1 else 'task',
            'exchange': True,
            **(decoder or {}),
        }
        self.out_channels = (
            [out_channels] * tasks if isinstance(out_channels, int) else list(out_channels)
        )
        if len(self.out_channels) != tasks:
            raise ValueError(
                f'out_channels {self.out_channels} is not one number per task, of {tasks}'
            )
        widths = [base_channels * min(2**i, 8) for i in range(downs)]
        norm_cfg = norm_cfg or dict(type='CENIN', threshold=1e-2)
        fusion = dict(encoder.get('fusion') or {})
        self.out_grid = StreamGrid(tasks) if fusion.get('merge') else self.grid
        self._make_encoder(in_channels, widths, encoder, norm_cfg)
        self._make_decoder(widths, decoder, decoder_norm_cfg or norm_cfg, dropout_ratio)
        self._check_convs(convs, fusion)
        if convs == 'private':
            unshare(self, self.grid.size)
        self.fusions = ModuleDict()  # mmengine's, which initialises what it holds
        self.apart: set[int] = set()  # layers whose output has streams that merge later
        if fusion:
            check_no_exchange([norm for _, norm in exchange_norms(self.down_norms)])
            self._fuse(fusion, widths)

    def _check_convs(self, convs: str, fusion: Mapping[str, Any]) -> None:
        if convs not in ('shared', 'private'):
            raise ValueError(f"convs must be 'shared' or 'private', got '{convs}'")
        own = convs == 'private' or fusion.get('merge')
        if own and (self.grid.tasks > 1 or self.policy is not None):
            raise ValueError(
                "convs='private', and fusion with merge=True, are for one task: leave them out"
            )
        check_merge(fusion, convs)

    def _fuse(self, cfg: dict, widths: list[int]) -> None:
        after = check_places(cfg.pop('after', ()), self.downs, 'fusion after layer')
        last = after[-1]
        if cfg.get('merge'):
            unshare(self.down_convs[:last], self.grid.size)
            single_stream(self.down_norms[last:])
            self.apart = set(range(last - 1))
        for layer in after:
            own = dict(cfg, channels=widths[layer - 1], grid=self.grid, last=layer == last)
            self.fusions[str(layer - 1)] = MODELS.build(own)

    def _make_encoder(self, channels: int, widths: list[int], part: dict, norm_cfg: Any) -> None:
        last = len(widths) - 1
        learned = part['groups'] == 'learned'
        groups = check_groups('shared' if learned else part['groups'], self.grid.tasks)
        own = {key: part[key] for key in ('copies', 'sharing') if key in part}
        self.policy = SharingPolicy(len(widths), self.grid.tasks, **own) if learned else None
        self.down_convs, self.down_norms = nn.ModuleList(), nn.ModuleList()
        for i, width in enumerate(widths):
            self.down_convs.append(
                LearnedPerTask(_maker(DownConv, channels, width), self.grid, self.policy, i)
                if self.policy is not None
                else PerTask(_maker(DownConv, channels, width), self.grid, groups)
            )
            self.down_norms.append(
                self._norm(norm_cfg, width, self.grid, 'modalities', part['exchange'], groups)
                if 0 < i < last
                else nn.Identity()
            )
            channels = width
        if (
            part['exchange']
            and self.grid.modalities > 1
            and not any(exchange_norms(self.down_norms))
        ):
            raise ValueError(
                'the encoder cannot exchange between modalities: its norms are not private. Set '
                "encoder=dict(exchange=False), or norm_cfg=dict(type='CENIN')"
            )
        # streams that have the same input are one up to the first private norm, after two convs
        self.common = not learned and max(groups) == 0 and self.domains < self.grid.size

    def _make_decoder(
        self, widths: list[int], part: dict, norm_cfg: Any, dropout_ratio: float
    ) -> None:
        groups = check_groups(part['groups'], self.out_grid.tasks)
        self.up_convs, self.up_norms = nn.ModuleList(), nn.ModuleList()
        self.dropouts = nn.ModuleList()
        channels = widths[-1]
        for i, width in enumerate(widths[-2::-1]):
            self.up_convs.append(PerTask(_maker(UpConv, channels, width), self.out_grid, groups))
            self.up_norms.append(
                self._norm(norm_cfg, width, self.out_grid, 'tasks', part['exchange'], groups)
            )
            self.dropouts.append(
                nn.Dropout(dropout_ratio) if i < 3 and dropout_ratio else nn.Identity()
            )
            channels = 2 * width  # with the skip connection
        if part['exchange'] and self.out_grid.tasks > 1 and not any(exchange_norms(self.up_norms)):
            raise ValueError(
                'the decoder cannot exchange between tasks: its norms are not private. Set '
                'decoder=dict(exchange=False), or leave out decoder_norm_cfg'
            )
        if len(set(self.out_channels)) > 1:
            groups = tuple(range(self.out_grid.tasks))
        sizes = iter([self.out_channels[groups.index(g)] for g in range(max(groups) + 1)])
        self.output = PerTask(lambda: UpConv(channels, next(sizes), 4, 2, 1), self.out_grid, groups)

    def _norm(
        self,
        cfg: Any,
        width: int,
        grid: StreamGrid,
        axis: str,
        exchange: bool,
        groups: tuple[int, ...],
    ) -> nn.Module:
        holder = {'norm_cfg': deepcopy(dict(cfg))}
        set_grid(holder, grid, axis=axis, exchange=exchange)
        own = holder['norm_cfg']
        if 'modalities' in own:  # a CEN norm has all streams in one layer
            return build_norm_layer(own, width)[1]
        return PerTask(lambda: build_norm_layer(own, width)[1], grid, groups)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Inputs ``(B, D, C, H, W)`` to T outputs ``(B, M, C', H, W)``."""
        self._check(x)
        if self.policy is not None:
            self.policy()
        y = x.flatten(0, 1) if self.common else self._to_streams(x)
        return tuple(self.output.by_task(self._decode(self._encode(y, self.common))))

    def _decode(self, skips: list[Tensor]) -> Tensor:
        """Features of the encoder, finest first, to what the output takes."""
        y = skips.pop()
        for conv, norm, dropout in zip(self.up_convs, self.up_norms, self.dropouts, strict=True):
            y = dropout(norm(conv(y.relu_())))
            y = torch.cat([y, skips.pop()], 1)  # (T*M*B, 2C, h, w)
        return y.relu_()

    def _encode(self, y: Tensor, common: bool = False) -> list[Tensor]:
        """Streams, or with ``common`` the domains that they share at first, to features of all
        stages, ``(T*M*B, C', h, w)`` each, finest first."""
        features: list[Tensor] = []
        for i, (conv, norm) in enumerate(zip(self.down_convs, self.down_norms, strict=True)):
            y = conv(y)
            if common and i == 1:
                y = self._part(y)
            y = norm(y)
            if str(i) in self.fusions:
                y = self.fusions[str(i)](y)
            if i + 1 < self.downs:  # in place: skip connections carry the activated features
                y = nn.functional.leaky_relu(y, 0.2, inplace=True)
            features.append(self._part(y) if common and i == 0 else y)
        return [
            first_modality(y, self.grid) if i in self.apart else y for i, y in enumerate(features)
        ]

    def _part(self, y: Tensor) -> Tensor:
        """Features of the inputs, ``(B*D, ...)``, to those of the streams, ``(T*M*B, ...)``."""
        return self._to_streams(y.unflatten(0, (-1, self.domains)))

    def _to_streams(self, x: Tensor) -> Tensor:
        """Give every stream its input: ``(B, D, ...)`` to ``(T*M*B, ...)``."""
        return self.grid.fold(x.index_select(1, self.inputs).unflatten(1, self.grid.shape))

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
