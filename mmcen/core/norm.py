"""ExchangeNorm: private norms for all streams, and channel exchange between them (Eqs. 3 and 4).

The layer holds *one* stock norm with the parameters and statistics of all streams, one after the
other. SyncBN conversion, frozen statistics and the optimizer's rules for norms therefore see a
stock norm. Each stream, a slice of the folded batch, is normalised by its own slice of the
parameters.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from .functional import exchange, mean_of_others, present_rows
from .grid import StreamGrid
from .kernels.batch_norm import private_batch_norm, private_instance_norm
from .kernels.exchange import DisjointExchange, WatchedExchange
from .selection import Selection
from .stock_norms import BATCH_NORMS, INSTANCE_NORMS, describe_norm, take_activation, widen_norm


class ExchangeNorm(nn.Module):
    """Normalise each stream by its own statistics, then exchange channels along one axis.

    Args:
        norm: A stock norm of C channels, which becomes a part of this layer; its values are copied
            to every stream. Batch, instance, group, layer and RMS norms are supported, and classes
            that behave like them. An activation inside the norm (timm) is applied after the
            exchange. A custom norm for all streams needs ``num_features``, ``widen(streams)`` and
            ``normalise_streams(x, streams)``.
        grid: Sizes T and M, shared by all norms of a network.
        axis: Streams exchange along ``'modalities'`` (encoders) or ``'tasks'`` (decoders).
        selection: Strategy that selects the channels to replace; None never exchanges.

    Attributes:
        exchange: Whether the norm exchanges and is penalised, if it has a selection.
        for_subsets: Whether streams have parameters and statistics of their own for when a modality
            is absent, see :meth:`split_for_subsets`.
        replacement: Module that computes the values of replaced channels, from features
            ``(B, T, M, C, ...)``, gamma ``(T, M, C)`` and the dimension along which streams
            exchange. It returns values for all channels. None is the mean of the others (Eq. 4).

    Input and output: folded features ``(T*M*B, ...)`` in the shape that the stock norm takes, of
    any memory layout and floating-point type.

    Raises:
        ValueError: If a batch is not a multiple of T*M, or a checkpoint has another number of
            streams. A checkpoint of one stream (such as ImageNet's) loads into all streams.
    """

    def __init__(
        self,
        norm: nn.Module,
        grid: StreamGrid | None = None,
        axis: str = 'modalities',
        selection: Selection | None = None,
    ) -> None:
        super().__init__()
        self.grid = grid or StreamGrid()
        self.axis = axis
        self.grid.dim(axis)  # checks the word
        self.after = take_activation(norm)
        self.num_features, self.channel_dim = describe_norm(norm)
        self.norm: Any = widen_norm(norm, math.prod(self.grid.sizes))
        self.selection = selection
        self.exchange = True  # False stops exchange and penalty
        self.for_subsets = False
        self.replacement: nn.Module | None = None

    @property
    def weight(self) -> Tensor:
        """Scaling factors of all streams, (T*M*C,); initialisers look for this name."""
        return self.norm.weight

    @property
    def bias(self) -> Tensor | None:
        """Offsets of all streams, (T*M*C,), or None."""
        return getattr(self.norm, 'bias', None)

    @property
    def exchanges(self) -> bool:
        """Whether the norm exchanges: it has a selection and there are several streams."""
        several = self.grid.length(self.axis) > 1
        return self.exchange and self.selection is not None and several

    @property
    def exchangeable(self) -> Tensor:
        """Mask of the channels that may be replaced, boolean (T, M, C)."""
        return self._none() if self.selection is None else self.selection.exchangeable

    @property
    def penalised(self) -> Tensor:
        """Mask of the scaling factors that are penalised, boolean (T, M, C)."""
        return self._none() if self.selection is None else self.selection.penalised

    def gamma(self) -> Tensor:
        """Return the scaling factors as (T, M, C), a view of the parameter.

        They are those for when all modalities are present, which select the exchanged channels.
        """
        streams = math.prod(self.grid.sizes)
        gamma = self.norm.weight.view(-1, self.num_features)[:streams]
        return gamma.expand(streams, -1).view(*self.grid.sizes, -1)

    def split_for_subsets(self) -> None:
        """Give each stream a second set of values, for when a modality is absent.

        Its input differs then, because nothing, or something else, was exchanged before. Parameters
        and statistics are copied, and so are those of a checkpoint without the second set.
        """
        if not self.for_subsets:
            self.norm = widen_norm(self.norm, 2)
            self.for_subsets = True

    def first_part(self, modalities: int) -> int:
        """Return the number of the part of the stock norm that the first stream of the grid uses.

        Args:
            modalities: Number of modalities that are present.
        """
        if not self.for_subsets or modalities == self.grid.sizes[1]:
            return 0
        return math.prod(self.grid.sizes)

    def exchange_mask(self) -> Tensor:
        """Return the mask of the channels that are replaced now, boolean (T, M, C)."""
        if self.selection is None or not self.exchange:
            return self._none()
        return self.selection.mask(self.gamma())

    def _none(self) -> Tensor:
        return torch.zeros_like(self.gamma(), dtype=torch.bool)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Normalise each stream of a folded batch, and exchange channels."""
        self.grid.check_batch(x)
        dim = self._channel_dim(**kwargs)
        if x.shape[dim] != self.num_features:
            raise ValueError(
                f'expected {self.num_features} channels in dimension {dim} of (T*M*B, ...), got '
                f'{tuple(x.shape)}: put the streams into the batch'
            )
        y = self._normalise(x, *args, **kwargs)
        if self.exchanges:
            y = self._exchange(y, dim)
        return y if self.after is None else self.after(y)

    def _normalise(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        norm, first = self.norm, self.first_part(self.grid.modalities)
        streams = [first + stream for stream in self.grid.streams]
        if hasattr(norm, 'normalise_streams'):
            return norm.normalise_streams(x, streams)
        if isinstance(norm, BATCH_NORMS):
            return private_batch_norm(norm, x, streams, self.num_features)
        if isinstance(norm, INSTANCE_NORMS) and x.dim() > 2:
            return private_instance_norm(norm, x, streams, self.num_features)
        pairs = zip(self.grid.separate(x), streams, strict=True)
        return torch.cat([self._stock(part, stream, *args, **kwargs) for part, stream in pairs])

    def _stock(self, x: Tensor, stream: int, *args: Any, **kwargs: Any) -> Tensor:
        """Apply the stock norm to one stream ``(B, ...)``."""
        norm: Any = self.norm
        part = slice(stream * self.num_features, (stream + 1) * self.num_features)
        weight, bias = norm.weight[part], None if self.bias is None else self.bias[part]
        if type(norm) is nn.LayerNorm:
            return F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)
        if type(norm) is nn.GroupNorm:
            return F.group_norm(x, norm.num_groups, weight, bias, norm.eps)
        state = {'weight': weight} if bias is None else {'weight': weight, 'bias': bias}
        return functional_call(norm, state, (x, *args), kwargs)

    def _exchange(self, y: Tensor, channel_dim: int) -> Tensor:
        assert self.selection is not None
        if self.training:
            self.selection.draw()
        mask = self.exchange_mask()
        plain = self.replacement is not None or torch.compiler.is_compiling()
        watch = self.selection.watch()
        if self.selection.region == 'disjoint' and not plain:
            return DisjointExchange.apply(y, mask, self.grid, self.axis, channel_dim, watch)
        streams = self.grid.unfold(y.movedim(channel_dim, 1))  # (B, T, M, C, ...)
        others = self._others(streams)
        dim = self.grid.dim(self.axis)
        result = exchange(streams, present_rows(mask, self.grid), dim, others)
        if watch is not None:
            result = WatchedExchange.apply(result, (others - streams).detach(), watch)
        return self.grid.fold(result).movedim(1, channel_dim)

    def _others(self, streams: Tensor) -> Tensor:
        """Return the values that replace channels, for all channels of ``(B, T, M, C, ...)``."""
        dim = self.grid.dim(self.axis)
        if self.replacement is None:
            return mean_of_others(streams, dim)
        return self.replacement(streams, present_rows(self.gamma(), self.grid), dim)

    def _channel_dim(self, data_format: str = '', **_: Any) -> int:
        """Return the dimension of the channels; mmpretrain's LayerNorm states it at each call."""
        return -1 if data_format == 'channel_last' else self.channel_dim

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # a stock norm's entries lie one level higher: bn1.weight instead of bn1.norm.weight
        for name in {} if self.after is None else self.after.state_dict():  # act.weight, of timm
            if prefix + name in state_dict:
                state_dict[f'{prefix}after.{name}'] = state_dict.pop(prefix + name)
        for name, own in self.norm.state_dict().items():
            key, stock = f'{prefix}norm.{name}', prefix + name.rpartition('.')[2]
            if key not in state_dict and stock in state_dict:
                state_dict[key] = state_dict.pop(stock)
                for choice, now in self._choice().items():
                    state_dict.setdefault(f'{prefix}selection.{choice}', now)
            if key in state_dict and own.dim():
                state_dict[key] = self._into_all_streams(state_dict[key], key, own.numel())
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _choice(self) -> dict[str, Tensor]:
        """Return the state of the selection, which no stock checkpoint has."""
        return {} if self.selection is None else self.selection.state_dict()

    def _into_all_streams(self, value: Tensor, key: str, wanted: int) -> Tensor:
        if value.numel() == self.num_features:
            return value.repeat(wanted // self.num_features)  # (T*M*C,)
        if self.for_subsets and 2 * value.numel() == wanted:
            return value.repeat(2)
        if value.numel() != wanted:
            streams = wanted // self.num_features
            several = f' or {streams} x {self.num_features} ({streams} streams)'
            split = (
                ', or with modality_dropout=dict(own_norms=True)'
                if value.numel() == 2 * wanted
                else ''
            )
            raise ValueError(
                f'{key} has {value.numel()} values, the model needs {self.num_features} '
                f'(one stream){several if streams > 1 else ""}: the checkpoint was made for '
                f'another number of streams or another width{split}'
            )
        return value

    def extra_repr(self) -> str:
        """Return the settings for ``repr``."""
        return f'{self.num_features}, {self.grid}, axis={self.axis}'
