"""Convert the parts of a model by the ``exchange`` of its config."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..core import StreamGrid, convert


def make_multi_stream(
    part: nn.Module,
    grid: StreamGrid,
    exchange: Mapping[str, Any] | None,
    axis: str = 'modalities',
    default: str = 'spatial',
) -> nn.Module:
    """Convert a part of a model, in place.

    Args:
        part: A backbone or head, built for one stream.
        grid: Sizes T and M, shared by all parts of the model.
        exchange: Arguments of :func:`mmcen.convert`; its argument ``exchange`` is named ``after``.
        axis: Axis along which the part exchanges, ``'modalities'`` or ``'tasks'``.
        default: Rule if ``after`` is missing and the part has no ``exchange_rule``.
    """
    options = dict(exchange or {})
    rule = options.pop('after', getattr(part, 'exchange_rule', default))
    return convert(part, exchange=rule, axis=axis, grid=grid, **options)
