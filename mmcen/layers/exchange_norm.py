"""ExchangeNorm: private norms for all streams, and channel exchange between them (Eqs. 3 and 4).

Streams are folded into the batch, ``(T*M*B, C, H, W)``. On the view ``(B, T*M*C, H, W)`` *one*
stock norm with T*M*C features is the private norms of all streams. The layer has that norm and is
not one: SyncBN conversion, frozen BN and the optimizer's norm rules see a plain norm and need to
know nothing of exchange.

It is a norm type of the registry, so ``norm_cfg=dict(type='CENBN', ...)`` makes any backbone
multi-stream.
"""

from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..functional import (
    DisjointExchange,
    draw_channels,
    exchange,
    part_bounds,
    spread_channels,
    sub_parts,
)
from ..streams import StreamGrid
from .partly_shared import SHARED, PartlySharedNorm
from .private_batch_norm import private_batch_norm, private_instance_norm
from .stand_ins import make_stand_in

SELECT = ('gamma', 'fixed', 'random', 'budget')


def is_channels_last(x: Tensor) -> bool:
    """Whether features lie channel by channel at each pixel, and not plane by plane."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


class ExchangeNorm(nn.Module):
    """Normalise each stream by its own statistics, then exchange channels along one axis of the
    grid.

    Args:
        num_features: C, channels of one stream.
        modalities, tasks: sizes M and T of the stream grid.
        axis: streams exchange along ``'modalities'`` (encoders) or ``'tasks'`` (decoders).
        threshold: theta of Eq. 4: channels with ``|gamma| < threshold`` are replaced. At 0 a norm
            is penalised but never exchanges (the "l1 without exchange" rows of Table 1).
        region: who may be exchanged: ``'disjoint'`` sub-parts (the paper) or ``'all'`` channels
            (the official code).
        penalty_region: whose gamma is penalised: ``'disjoint'`` (the paper and the official code)
            or ``'all'`` (Tables 1 and 13).
        exchange: whether this norm exchanges and is penalised. Models decide which of their norms
            do by setting the attribute; False is a plain private norm. What ``replace`` draws or
            learns goes when it is set to False, and starts anew when it is set to True.
        select: which channels of the region are replaced (Table 1): ``'gamma'``: Eq. 4;
            ``'fixed'``: a portion, evenly spread and always the same; ``'random'``: as many, drawn
            in every training step, and the fixed ones at test; ``'budget'``: what an
            :class:`~mmcen.layers.budget.ExchangeBudget` chose last, at first the fixed ones.
            Without gamma nothing is penalised.
        portion: of a stream's C channels, as far as its region reaches; for fixed and random.
        replace: what a replaced channel becomes, a row of Table 12: ``'mean'`` of the others'
            (Eq. 4), or another word of :class:`~mmcen.layers.stand_ins.StandIn`.
        shared: what of the norm all streams share (Table 11): nothing (None), ``'affine'`` or
            ``'statistics'``, see :class:`~mmcen.layers.partly_shared.PartlySharedNorm`.
        kwargs: arguments of the stock norm, such as ``eps`` and ``momentum``.

    Input and output: ``(T*M*B, C, H, W)``, batch-major, any layout and floating type.

    Raises:
        ValueError: on a batch that is no multiple of T*M, a wrong number of channels, an unknown
            word, exchange by a gamma that is shared, or a checkpoint made for another number of
            streams. One stream's checkpoint (such as ImageNet's) loads into all streams.
    """

    norm_type: type[nn.Module]
    _abbr_: str  # how mmcv's build_norm_layer names the attribute: bn1, bn2, ...

    def __init__(
        self,
        num_features: int,
        modalities: int = 1,
        tasks: int = 1,
        axis: str = 'modalities',
        threshold: float = 2e-2,
        region: str = 'disjoint',
        penalty_region: str = 'disjoint',
        exchange: bool = True,
        select: str = 'gamma',
        portion: float = 0.3,
        replace: str = 'mean',
        shared: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if threshold < 0:
            raise ValueError(f'threshold must not be negative, got {threshold}')
        for name, word, words in (('select', select, SELECT), ('shared', shared, SHARED)):
            if word not in words:
                raise ValueError(f"{name} must be one of {words}, got '{word}'")
        self.grid = StreamGrid(tasks, modalities)
        self.num_features = num_features
        self.axis = axis
        self.threshold = threshold
        self.replace = replace
        self.shared = shared
        self.disjoint = region == 'disjoint'
        self.norm: Any = (
            PartlySharedNorm(self.norm_type, self.grid.size, num_features, shared, **kwargs)
            if shared
            else self.norm_type(self.grid.size * num_features, **kwargs)
        )
        # boolean (T, M, C); derived from the arguments, so no part of a checkpoint
        for name, where in (('exchangeable', region), ('penalised', penalty_region)):
            self.register_buffer(
                name, sub_parts(self.grid, num_features, axis, where), persistent=False
            )
        self.exchangeable: Tensor
        self.penalised: Tensor
        self.select = select
        if select != 'gamma':
            self.penalised.zero_()
            fixed = spread_channels(self.exchangeable, portion)
            # what a budget chose is a part of the checkpoint
            self.register_buffer('fixed', fixed, persistent=select == 'budget')
            self.fixed: Tensor
            self.drawn = self.fixed  # of the last training step
        if select == 'budget':
            if region != 'disjoint':
                raise ValueError(
                    "select='budget' chooses inside of the sub-parts: region='disjoint'"
                )
            # running mean and mean square of the first-order effect of exchanging a channel
            effects = torch.zeros(2, *self.exchangeable.shape)
            self.register_buffer('effects', effects)
            self.effects: Tensor
        self.watch_decay: float | None = None
        self.exchange = exchange

    @property
    def exchange(self) -> bool:
        """Whether this norm is told to exchange."""
        return self._told

    @exchange.setter
    def exchange(self, told: bool) -> None:
        streams = self.grid.length(self.axis)
        if told and streams > 1 and self.shared == 'affine':
            raise ValueError(
                "shared='affine' leaves one gamma for all streams, by which none can be told to "
                'exchange: set exchange=False'
            )
        if told == getattr(self, '_told', None):
            return  # what is drawn or learned stays
        self._told = told
        # weights that nothing uses would stop a distributed wrapper, and be counted
        stand_in = make_stand_in(self.replace, streams if told else 1, self.num_features)
        self.stand_in = stand_in and stand_in.to(self.exchangeable.device)

    @property
    def weight(self) -> Tensor:
        """gamma of all streams, (T*M*C,): weight initialisers by layer name look for it here."""
        return self.norm.weight

    @property
    def bias(self) -> Tensor:
        """beta of all streams, (T*M*C,)."""
        return self.norm.bias

    @property
    def exchanges(self) -> bool:
        """Whether this norm exchanges and is penalised: it is told to, and has streams to exchange
        with."""
        return self.exchange and self.grid.length(self.axis) > 1

    def gamma(self) -> Tensor:
        """Scaling factors as (T, M, C), a view of the parameter."""
        gamma = self.norm.weight.view(-1, self.num_features)
        return gamma.expand(self.grid.size, -1).view(self.exchangeable.shape)

    def exchange_mask(self) -> Tensor:
        """Which channels are replaced at present: boolean (T, M, C), Eq. 4 with |gamma| as the
        official code, or as selected otherwise."""
        if self.select == 'gamma':
            small = self.gamma().detach().abs() < self.threshold
            return small & self.exchangeable & self.exchange
        random = self.select == 'random' and self.training
        return (self.drawn.to(self.fixed.device) if random else self.fixed) & self.exchange

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] != self.num_features:
            raise ValueError(
                f'expected (T*M*B, {self.num_features}, H, W), got {tuple(x.shape)}: '
                'streams belong into the batch'
            )
        y = self._normalise(x)  # (T*M*B, C, H, W)
        return self._exchange(y) if self.exchanges else y

    def single(self) -> 'ExchangeNorm':
        """A norm like this one of a single stream, with fresh values."""
        own = getattr(self.norm, 'statistics', self.norm)  # of a partly shared one
        stock = {name: getattr(own, name) for name in ('eps', 'momentum', 'track_running_stats')}
        norm = type(self)(self.num_features, threshold=self.threshold, exchange=False, **stock)
        return norm.requires_grad_(self.norm.weight.requires_grad)

    def _exchange(self, y: Tensor) -> Tensor:
        if self.select == 'random' and self.training:
            self.drawn = draw_channels(self.exchangeable, self.fixed.sum(-1))
        mask = self.exchange_mask()
        in_place = self.disjoint and self.stand_in is None and not torch.compiler.is_compiling()
        if in_place:
            watch = self._watch if self.training and self.watch_decay is not None else None
            return DisjointExchange.apply(y, mask, self.grid, self.axis, watch)
        streams, dim = self.grid.unfold(y), self.grid.dim(self.axis)  # (B, T, M, C, H, W)
        if self.stand_in is None:
            return self.grid.fold(exchange(streams, mask, dim))
        others = self.stand_in(streams, self.gamma(), dim)
        return self.grid.fold(torch.where(~mask[..., None, None], streams, others))

    def _normalise(self, x: Tensor) -> Tensor:
        streams = self.grid.unfold(x)  # (B, T, M, C, H, W)
        if type(self.norm) is nn.BatchNorm2d:
            return private_batch_norm(self.norm, x)
        if type(self.norm) is nn.InstanceNorm2d and self._by_sample(len(streams)):
            return private_instance_norm(self.norm, x)
        streams = streams.flatten(1, 3)  # (B, T*M*C, H, W), a view where B is 1
        y = self.norm(streams.contiguous()).unflatten(1, self.exchangeable.shape)
        layout = torch.channels_last if is_channels_last(x) else torch.contiguous_format
        return self.grid.fold(y).contiguous(memory_format=layout)

    @torch.no_grad()
    def _watch(self, by_part: list[Tensor]) -> None:
        """Take in the effects of a step, by sub-part ``(T or M, c)``."""
        effects = torch.zeros_like(self.effects[0])  # (T, M, C)
        bounds = part_bounds(len(by_part), self.num_features)
        dim = self.grid.dim(self.axis) - 1
        for i, part in enumerate(by_part):
            effects.select(dim, i)[:, bounds[i] : bounds[i + 1]] = part.float()
        decay = self.watch_decay or 0.0
        self.effects.mul_(decay).add_(torch.stack([effects, effects.square()]), alpha=1 - decay)

    def _by_sample(self, samples: int) -> bool:
        """Whether no running statistics join several samples."""
        return samples == 1 or not (self.norm.track_running_stats and self.norm.training)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # a stock norm's entries lie one level higher: bn1.weight instead of bn1.norm.weight
        for name, own in self.norm.state_dict().items():
            key, stock = f'{prefix}norm.{name}', prefix + name.removeprefix('statistics.')
            if key not in state_dict and stock in state_dict:
                state_dict[key] = state_dict.pop(stock)
            if key in state_dict and own.dim():
                state_dict[key] = self._into_all_streams(state_dict[key], key, own.numel())
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _into_all_streams(self, value: Tensor, key: str, wanted: int) -> Tensor:
        if value.numel() == self.num_features:
            return value.repeat(wanted // self.num_features)  # (T*M*C,)
        if value.numel() != wanted:
            streams = wanted // self.num_features
            several = f' or {streams} x {self.num_features} ({streams} streams)'
            raise ValueError(
                f'{key} has {value.numel()} values, the model needs {self.num_features} '
                f'(one stream){several if streams > 1 else ""}: the checkpoint was made for '
                "another number of streams, another width or another 'shared'"
            )
        return value

    def extra_repr(self) -> str:
        return (
            f'{self.num_features}, tasks={self.grid.tasks}, modalities={self.grid.modalities}, '
            f'axis={self.axis}, threshold={self.threshold}, exchange={self.exchange}'
        )


@MODELS.register_module()
class CENBN(ExchangeNorm):
    """:class:`ExchangeNorm` over batch normalisation; threshold 2e-2 (section 4)."""

    norm_type = nn.BatchNorm2d
    _abbr_ = 'bn'


@MODELS.register_module()
class CENSyncBN(ExchangeNorm):
    """:class:`ExchangeNorm` over batch normalisation with statistics of all processes."""

    norm_type = nn.SyncBatchNorm
    _abbr_ = 'bn'


@MODELS.register_module()
class CENIN(ExchangeNorm):
    """:class:`ExchangeNorm` over instance normalisation with scaling factors; threshold 1e-2
    (section 4)."""

    norm_type = nn.InstanceNorm2d
    _abbr_ = 'in'

    def __init__(
        self,
        num_features: int,
        modalities: int = 1,
        tasks: int = 1,
        *,
        threshold: float = 1e-2,
        affine: bool = True,
        **kwargs: Any,
    ) -> None:
        if not affine:
            raise ValueError(
                'affine=False leaves no scaling factor to exchange by: use affine=True'
            )
        super().__init__(
            num_features, modalities, tasks, threshold=threshold, affine=True, **kwargs
        )
