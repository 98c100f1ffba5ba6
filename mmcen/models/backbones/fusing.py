"""Fusion baselines between the stages of a backbone, in place of exchange (Table 2)."""

from collections.abc import Container, Mapping, Sequence
from typing import Any

from mmengine.registry import MODELS
from torch import Tensor, nn

from ...core.grid import StreamGrid
from ...layers import single_stream, unshare
from ...layers.fusion import check_places, first_modality


def add_fusion(
    stages: Sequence[Sequence[nn.Sequential]],
    channels: Sequence[int],
    grid: StreamGrid,
    cfg: Mapping[str, Any],
) -> set[int]:
    """Put a fusion behind stages; where streams merge, make the convolutions up to the last fusion
    private, and the norms behind it those of a single stream.

    A stem is the caller's: it is no stage.

    Args:
        stages: parts of each stage, in the order of the forward pass.
        channels: C of each stage's output.
        grid: of the streams.
        cfg: of a :class:`~mmcen.layers.fusion.Fusion`, and ``after``: stages, counted from 1.

    Returns:
        Places, from 0, of the stages whose output has streams that merge later.

    Raises:
        ValueError: a stage that there is not.
    """
    cfg = dict(cfg)
    after = check_places(cfg.pop('after', ()), len(stages), 'fusion after stage')
    merge = cfg.get('merge', False)
    if merge:
        for parts in stages[: after[-1]]:
            unshare(nn.ModuleList(parts), grid.size)
        for parts in stages[after[-1] :]:
            single_stream(nn.ModuleList(parts))
    for stage in after:
        own = dict(cfg, channels=channels[stage - 1], grid=grid, last=stage == after[-1])
        stages[stage - 1][-1].add_module('fusion', MODELS.build(own))
    return set(range(after[-1] - 1)) if merge else set()


def first_where_apart(
    features: Sequence[Tensor], places: Sequence[int], apart: Container[int], grid: StreamGrid
) -> tuple[Tensor, ...]:
    """Features ``(T*M*B, ...)`` of the stages at these places; where streams are still apart that
    merge later, the first one's, ``(T*B, ...)``."""
    return tuple(
        first_modality(x, grid) if place in apart else x
        for place, x in zip(places, features, strict=True)
    )
