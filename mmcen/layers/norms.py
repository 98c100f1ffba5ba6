"""What a model asks of its norms: which exchange, and whether all streams have their own."""

from collections.abc import Container
from typing import Any

from mmcv.cnn import is_norm
from mmengine.registry import MODELS
from torch import nn

from ..core.grid import StreamGrid
from ..core.norm import ExchangeNorm


def exchange_only(model: nn.Module, chosen: Container[nn.Module]) -> list[ExchangeNorm]:
    """Stop exchange everywhere but in chosen norms; return the norms that still exchange."""
    norms = [m for m in model.modules() if isinstance(m, ExchangeNorm)]
    for norm in norms:
        norm.exchange = norm.exchange and norm in chosen
        if not norm.exchange:
            # weights that nothing uses would stop a distributed wrapper, and be counted
            norm.replacement = None
    return [norm for norm in norms if norm.exchange]


def check_private_norms(module: nn.Module, grid: StreamGrid, where: str) -> None:
    """Complain about norms through which streams would share statistics in silence.

    Some backbones hand ``norm_cfg`` to a part of their norms only (BiSeNetV2 to none, PIDNet to 16
    of 73).

    Raises:
        ValueError: if a stock norm serves several streams, or an ExchangeNorm was built for another
            grid.
    """
    own = [m for m in module.modules() if isinstance(m, ExchangeNorm)]
    private = {id(part) for norm in own for part in norm.modules()}
    other = [m for m in own if m.grid != grid]
    if other:
        raise ValueError(
            f'{len(other)} norms of {where} are built for {other[0].grid}, the model has {grid}: '
            'leave tasks and modalities out of norm_cfg, and give the part its own '
            "norm_cfg=dict(type='CENBN')"
        )
    norms = [(name, m) for name, m in module.named_modules() if is_norm(m)]
    shared = [name for name, m in norms if id(m) not in private]
    if grid.size > 1 and shared:
        raise ValueError(
            f'{len(shared)} of {len(norms)} norms of {where} would be shared by {grid.size} '
            f"streams (first: '{shared[0]}'): it needs norm_cfg=dict(type='CENBN'), and a backbone "
            'that passes norm_cfg to all its norms'
        )


def set_grid(cfg: Any, grid: StreamGrid, **defaults: Any) -> None:
    """Write the sizes of the grid, and ``defaults``, into every CEN ``norm_cfg`` below ``cfg``, in
    place.

    So a config states its streams once.

    Raises:
        ValueError: if a ``norm_cfg`` states other sizes.
    """
    if isinstance(cfg, (list, tuple)):
        for value in cfg:
            set_grid(value, grid, **defaults)
    if not isinstance(cfg, dict):
        return
    for key, value in cfg.items():
        if key == 'norm_cfg' and _is_cen(value):
            for name, size in (('tasks', grid.tasks), ('modalities', grid.modalities)):
                if value.setdefault(name, size) != size:
                    raise ValueError(
                        f'norm_cfg says {name}={value[name]}, the model has {size}: '
                        'leave it out of norm_cfg'
                    )
            for name, default in defaults.items():
                value.setdefault(name, default)
        else:
            set_grid(value, grid, **defaults)


def _is_cen(cfg: Any) -> bool:
    if not isinstance(cfg, dict):
        return False
    kind = cfg.get('type')
    cls = MODELS.get(kind) if isinstance(kind, str) else kind
    return isinstance(cls, type) and issubclass(cls, ExchangeNorm)


def single_stream(module: nn.Module) -> None:
    """Make every ExchangeNorm below a module, fresh from its construction, one of a single stream:
    streams have merged before it."""
    for name, child in list(module.named_children()):
        if isinstance(child, ExchangeNorm):
            setattr(module, name, child.single())  # type: ignore[operator]
        else:
            single_stream(child)
