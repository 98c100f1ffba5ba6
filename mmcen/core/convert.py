"""Make any network multi-stream: private norms everywhere, exchange by a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from .grid import StreamGrid
from .measure import check_some_exchanged
from .norm import ExchangeNorm
from .private import PrivateCopies
from .selection import make_selection
from .stock_norms import has_own_values, is_known
from .trace import Use, trace

Rule = Callable[[str, nn.Module, nn.Module | None], bool]
RULES = ('spatial', 'depthwise', 'norm', 'every')


def convert(
    network: nn.Module,
    modalities: int = 1,
    tasks: int = 1,
    exchange: str | Rule | None = 'spatial',
    axis: str = 'modalities',
    private: Sequence[str] = (),
    inside: Sequence[str] | None = None,
    example: Any = None,
    grid: StreamGrid | None = None,
    **norm_options: Any,
) -> nn.Module:
    """Make a network that was built for one stream run all streams of a grid, in place.

    Its norms become :class:`ExchangeNorm` layers, which keep the values that they have, in every
    stream; all other layers stay as they are and are shared. The network then takes and returns
    folded batches, ``torch.cat`` of the streams. Convert before the optimizer is made, because
    parameters of norms are replaced. One-stream checkpoints load before and after.

    Args:
        network: Any network whose norms are batch, instance, group, layer or RMS norms.
        modalities: Number of modalities M.
        tasks: Number of tasks T.
        exchange: Which norms exchange. ``'spatial'``: those behind a convolution with a kernel
            above 1 (the paper). ``'depthwise'``: those behind a depthwise convolution.
            ``'norm'``: all norms inside a residual branch (transformers, as in TokenFusion).
            ``'every'``: all norms. A callable takes the name of a norm, the norm and the layer
            whose output it takes, or None. None: no norm exchanges.
        axis: Streams exchange along ``'modalities'`` or ``'tasks'``.
        private: Names of parts that streams do not share, such as ``['stem']``. Each stream gets a
            copy.
        inside: Names of the parts whose norms may exchange, such as ``['layer3', 'layer4']``; None
            for all.
        example: Input of the dry forward pass that finds the layer before each norm. Only needed
            by networks that do not accept a frame of 64x64 or 224x224.
        grid: A grid that this part of a model shares with other parts. It replaces ``tasks`` and
            ``modalities``.
        norm_options: Options of the exchanging norms, see
            :func:`~mmcen.core.selection.make_selection`: ``threshold=0.02`` is the paper's,
            ``budget=0.3`` exchanges a given share.

    Returns:
        The network, with the grid as ``network.stream_grid``. A deep copy has its own grid,
        which :meth:`StreamGrid.only` of the original does not change.

    Raises:
        ValueError: If a norm is of an unknown kind, no norm fits the rule, a named part is missing,
            a budget rounds to no channel, or the network was converted before.

    Examples:
        >>> import torch
        >>> block = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        >>> block = convert(block, modalities=2, threshold=0.02)
        >>> rgb, depth = torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8)
        >>> of_rgb, of_depth = block(torch.cat([rgb, depth])).chunk(2)
        >>> of_depth.shape
        torch.Size([4, 8, 8, 8])
    """
    if hasattr(network, 'stream_grid'):
        raise ValueError(
            f'{type(network).__name__} is converted already, for {network.stream_grid}'
        )
    grid = grid or StreamGrid(tasks, modalities)
    norms = {name: norm for name, norm in find_norms(network) if not _is_below(name, private)}
    for norm in norms.values():
        _check_one_stream(norm, grid)
    candidates = _inside(network, norms, inside)
    chosen = _choose(network, candidates, exchange if grid.length(axis) > 1 else None, example)
    made: dict[nn.Module, ExchangeNorm] = {}
    for name, norm in norms.items():
        if norm not in made:
            options = norm_options if norm in chosen else None
            made[norm] = convert_norm(norm, grid, axis, options)
        _replace(network, name, made[norm])
    check_some_exchanged(list(made.values()))
    for name in private:
        _replace(network, name, PrivateCopies(_part(network, name, 'private'), grid))
    network.stream_grid = grid  # type: ignore[assignment]
    return network


def convert_norm(
    norm: nn.Module, grid: StreamGrid, axis: str, options: Mapping[str, Any] | None
) -> ExchangeNorm:
    """Make a norm of one stream a norm of all streams.

    Args:
        norm: A stock norm, or an :class:`ExchangeNorm` of a single stream with ``options``.
        grid: Sizes T and M.
        axis: Streams exchange along ``'modalities'`` or ``'tasks'``.
        options: Options of the selection if the norm exchanges; options that the norm already has
            take precedence. None for a norm that does not exchange.

    Raises:
        ValueError: If the norm was made for several streams.
    """
    _check_one_stream(norm, grid)
    new = ExchangeNorm(_stock(norm), grid, axis)
    if options is not None:
        own = {**options, **getattr(norm, 'options', {})}
        new.selection = make_selection(grid, new.num_features, axis, **own)
    return new


def _check_one_stream(norm: nn.Module, grid: StreamGrid) -> None:
    if isinstance(norm, ExchangeNorm) and norm.grid.sizes != (1, 1):
        raise ValueError(
            f'a norm was made for {norm.grid}, the network is converted to {grid}: leave tasks and '
            'modalities out of norm_cfg'
        )


def find_norms(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield names and layers of the norms that streams must not share, in order.

    A layer that is used under several names is yielded under each.

    Raises:
        ValueError: If a norm with parameters is of an unknown kind.
    """
    inside: set[str] = set()
    for name, module in network.named_modules(remove_duplicate=False):
        if _is_below(name, inside):
            continue
        if isinstance(module, ExchangeNorm):
            inside.add(name)
            yield name, module
        elif 'norm' in type(module).__name__.lower() and has_own_values(module):
            if not is_known(module):
                raise ValueError(
                    f"'{name}' is a {type(module).__name__}, a norm of an unknown kind: streams "
                    'would share it. Replace it by a stock norm before converting'
                )
            inside.add(name)
            yield name, module


def _stock(norm: nn.Module) -> nn.Module:
    return norm.norm if isinstance(norm, ExchangeNorm) else norm


def _choose(
    network: nn.Module, norms: dict[str, nn.Module], rule: str | Rule | None, example: Any
) -> set[nn.Module]:
    """Return the norms that exchange under a rule."""
    if rule is None:
        return set()
    if isinstance(rule, str) and rule not in RULES:
        raise ValueError(f"exchange must be one of {RULES}, a callable or None, got '{rule}'")
    allowed = {name: norm for name, norm in norms.items() if getattr(norm, 'exchange', True)}
    if norms and not allowed:  # norm_cfg=dict(type='CENBN', exchange=False)
        return set()
    if rule == 'every':
        chosen = set(allowed.values())
    else:
        uses = trace(network, allowed.values(), example)
        chosen = {norm for name, norm in allowed.items() if _fits(rule, name, norm, uses[norm])}
    if not chosen:
        raise ValueError(
            f'no norm of {type(network).__name__} fits exchange={rule!r}: choose another rule of '
            f'{RULES}, a callable, or None'
        )
    return chosen


def _fits(rule: str | Rule, name: str, norm: nn.Module, use: Use) -> bool:
    if callable(rule):
        return rule(name, norm, use.producer)
    if rule == 'norm':
        return use.in_branch
    conv: Any = use.producer
    kernel = getattr(conv, 'kernel_size', None)
    if kernel is None or not isinstance(getattr(conv, 'weight', None), Tensor):
        return False
    if rule == 'depthwise':
        return conv.groups == conv.in_channels > 1
    return max(kernel) > 1


def _is_below(name: str, parts: Sequence[str] | set[str]) -> bool:
    return any(name == part or name.startswith(f'{part}.') for part in parts)


def _inside(
    network: nn.Module, norms: dict[str, nn.Module], parts: Sequence[str] | None
) -> dict[str, nn.Module]:
    if parts is None:
        return norms
    for name in parts:
        _part(network, name, 'inside')
    return {name: norm for name, norm in norms.items() if _is_below(name, parts)}


def _part(network: nn.Module, name: str, argument: str) -> nn.Module:
    try:
        return network.get_submodule(name)
    except AttributeError as error:
        names = ', '.join(name for name, _ in network.named_children())
        raise ValueError(
            f"{argument}: {type(network).__name__} has no part '{name}', its parts are {names}"
        ) from error


def _replace(network: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition('.')
    setattr(network.get_submodule(parent), child, new)
