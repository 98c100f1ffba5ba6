"""Norm types of the registry: ``norm_cfg=dict(type='CENBN', ...)``."""

from typing import Any

from mmengine.registry import MODELS
from torch import nn

from ..core.grid import StreamGrid
from ..core.norm import ExchangeNorm
from ..core.selection import make_selection

OPTIONS = ('selection', 'budget', 'threshold', 'region', 'penalty_region', 'share')


class CENNorm(ExchangeNorm):
    """An :class:`~mmcen.core.ExchangeNorm` that is built from a config.

    In a ``norm_cfg`` it replaces the stock norm of one stream. The model converts it to a norm of
    all streams (:func:`~mmcen.core.convert`), with the options that it states.

    Args:
        num_features: Channels C of one stream.
        modalities: Number of modalities M, for a norm that is used without a model.
        tasks: Number of tasks T, for a norm that is used without a model.
        axis: Streams exchange along ``'modalities'`` (encoders) or ``'tasks'`` (decoders).
        exchange: Whether the norm may exchange.
        kwargs: Options of :func:`~mmcen.core.selection.make_selection`, such as ``threshold`` and
            ``budget``, and of the stock norm, such as ``eps`` and ``momentum``.
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
        **kwargs: Any,
    ) -> None:
        self.options = {name: kwargs.pop(name) for name in OPTIONS if name in kwargs}
        grid = StreamGrid(tasks, modalities)
        selection = make_selection(grid, num_features, axis, **self.options)
        super().__init__(self.stock(num_features, **kwargs), grid, axis, selection)
        self.exchange = exchange


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
class CENLN(CENNorm):
    """:class:`CENNorm` over layer normalisation of the last dimension."""

    stock = nn.LayerNorm
    _abbr_ = 'ln'


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
