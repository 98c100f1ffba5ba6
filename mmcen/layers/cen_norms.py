"""Norm types of the registry: ``norm_cfg=dict(type='CENBN', ...)`` for multi-stream backbones."""

from typing import Any

from mmengine.registry import MODELS
from torch import nn

from ..core.grid import StreamGrid
from ..core.norm import ExchangeNorm
from ..core.selection import make_selection
from .partly_shared import PartlySharedNorm
from .stand_ins import make_stand_in

OPTIONS = ('selection', 'budget', 'threshold', 'region', 'penalty_region', 'share')


class CENNorm(ExchangeNorm):
    """An :class:`~mmcen.core.ExchangeNorm` that is built from a config.

    Args:
        num_features: C, channels of one stream.
        modalities, tasks: Sizes M and T of the stream grid.
        axis: Streams exchange along ``'modalities'`` (encoders) or ``'tasks'`` (decoders).
        exchange: Whether this norm exchanges and is penalised. Models decide which of their norms
            do by setting the attribute.
        replace: What a replaced channel becomes, a row of Table 12: ``'mean'`` of the others'
            (Eq. 4), or another word of :class:`~mmcen.layers.stand_ins.StandIn`.
        shared: What of the norm all streams share (Table 11): nothing (None), ``'affine'`` or
            ``'statistics'``, see :class:`~mmcen.layers.partly_shared.PartlySharedNorm`.
        kwargs: Of :func:`~mmcen.core.selection.make_selection`, such as ``threshold`` and
            ``budget``, and of the stock norm, such as ``eps`` and ``momentum``.

    Raises:
        ValueError: On an unknown word, or exchange by a gamma that is shared.
    """

    stock: type[nn.Module]
    _abbr_: str  # how mmcv's build_norm_layer names the attribute: bn1, bn2, ...

    def __init__(
        self,
        num_features: int,
        modalities: int = 1,
        tasks: int = 1,
        axis: str = 'modalities',
        exchange: bool = True,
        replace: str = 'mean',
        shared: str | None = None,
        **kwargs: Any,
    ) -> None:
        options = {name: kwargs.pop(name) for name in OPTIONS if name in kwargs}
        grid = StreamGrid(tasks, modalities)
        norm = (
            PartlySharedNorm(self.stock, num_features, shared, **kwargs)
            if shared
            else self.stock(num_features, **kwargs)
        )
        super().__init__(norm, grid, axis, make_selection(grid, num_features, axis, **options))
        streams = grid.length(axis)
        if exchange and streams > 1 and shared == 'affine':
            raise ValueError(
                "shared='affine' leaves one gamma for all streams, by which none can be told to "
                'exchange: set exchange=False'
            )
        self.options, self.replace, self.shared = options, replace, shared
        self.exchange = exchange
        self.replacement = make_stand_in(replace, streams if exchange else 1, num_features)

    def single(self) -> 'CENNorm':
        """Return a norm like this one of a single stream, with fresh values."""
        own = getattr(self.norm, 'statistics', self.norm)  # of a partly shared one
        stock = {name: getattr(own, name) for name in ('eps', 'momentum', 'track_running_stats')}
        norm = type(self)(self.num_features, exchange=False, **self.options, **stock)
        return norm.requires_grad_(self.norm.weight.requires_grad)


@MODELS.register_module()
class CENBN(CENNorm):
    """:class:`CENNorm` over batch normalisation; threshold 2e-2 (section 4)."""

    stock = nn.BatchNorm2d
    _abbr_ = 'bn'


@MODELS.register_module()
class CENSyncBN(CENNorm):
    """:class:`CENNorm` over batch normalisation with statistics of all processes."""

    stock = nn.SyncBatchNorm
    _abbr_ = 'bn'


@MODELS.register_module()
class CENIN(CENNorm):
    """:class:`CENNorm` over instance normalisation; threshold 1e-2 (section 4)."""

    stock = nn.InstanceNorm2d
    _abbr_ = 'in'

    def __init__(
        self,
        num_features: int,
        *args: Any,
        threshold: float = 1e-2,
        affine: bool = True,
        **kwargs: Any,
    ) -> None:
        if not affine:
            raise ValueError(
                'affine=False leaves no scaling factor to exchange by: use affine=True'
            )
        super().__init__(num_features, *args, threshold=threshold, affine=True, **kwargs)
