"""From the ``exchange`` of a model's config to :func:`mmcen.convert`."""

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
        exchange: Arguments of :func:`mmcen.convert`, of which its ``exchange`` is named ``after``.
        axis: The part exchanges along ``'modalities'`` or ``'tasks'``.
        default: Which norms exchange where ``after`` is left out and the part has no
            ``exchange_rule``.
    """
    options = dict(exchange or {})
    rule = options.pop('after', getattr(part, 'exchange_rule', default))
    return convert(part, exchange=rule, axis=axis, grid=grid, **options)
