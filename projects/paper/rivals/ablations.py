"""Models with the exchanging norms of Tables 11 and 12."""

from collections.abc import Mapping
from typing import Any

from mmengine.registry import MODELS
from torch import nn

from mmcen.core import ExchangeNorm, StreamGrid, convert_norm, exchange_norms
from mmcen.models import CENEncoderDecoder, CENUNetGenerator

from .partly_shared import PartlySharedNorm
from .stand_ins import make_stand_in


@MODELS.register_module()
class AblatedEncoderDecoder(CENEncoderDecoder):
    """A segmentor with other values for replaced channels than the mean of the others.

    Args:
        args, kwargs: Arguments of :class:`~mmcen.models.CENEncoderDecoder`.
        replace: Kind of :class:`~projects.paper.rivals.stand_ins.StandIn`, or ``'mean'``.
    """

    def __init__(self, *args: Any, replace: str = 'mean', **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for _, norm in exchange_norms(self):
            streams = norm.grid.length(norm.axis)
            norm.replacement = make_stand_in(replace, streams, norm.num_features)


@MODELS.register_module()
class AblatedUNet(CENUNetGenerator):
    """A generator whose norms differ from the paper's.

    Args:
        args, kwargs: Arguments of :class:`~mmcen.models.CENUNetGenerator`.
        replace: Value of replaced channels, a row of Table 12: ``'mean'`` of the others (Eq. 4), or
            a kind of :class:`~projects.paper.rivals.stand_ins.StandIn`.
        shared: Part of the norm that all streams share (Table 11): none (None), ``'affine'`` or
            ``'statistics'``, see :class:`~projects.paper.rivals.partly_shared.PartlySharedNorm`.
    """

    def __init__(
        self, *args: Any, replace: str = 'mean', shared: str | None = None, **kwargs: Any
    ) -> None:
        self.replace, self.shared = replace, shared
        super().__init__(*args, **kwargs)

    def _norm(self, width: int, grid: StreamGrid, axis: str, part: Mapping[str, Any]) -> nn.Module:
        norm = super()._norm(width, grid, axis, part)
        if self.shared is not None:
            return share_half(norm, self.shared)
        if norm.exchanges:
            norm.replacement = make_stand_in(self.replace, grid.length(axis), width)
        return norm


def share_half(norm: ExchangeNorm, shared: str) -> ExchangeNorm:
    """Return a new norm like a given one, of which the streams share one half.

    Raises:
        ValueError: If gamma would be shared by streams that exchange.
    """
    if shared == 'affine' and norm.exchanges:
        raise ValueError(
            "shared='affine' leaves one gamma for all streams, which cannot select the channels of "
            'one of them: set exchange=False'
        )
    stock: Any = norm.norm
    options = {key: getattr(stock, key) for key in ('eps', 'momentum', 'track_running_stats')}
    half = PartlySharedNorm(type(stock), norm.num_features, shared, **options)
    return convert_norm(half, norm.grid, norm.axis, None)
