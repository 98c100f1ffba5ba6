"""Find the layer before each norm, and whether the norm is in a branch, by one forward pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

SIZES = (64, 224)  # of the frames that are tried if no example is given


@dataclass
class Use:
    """How a network uses a norm.

    Args:
        producer: Layer whose output the norm takes; None if it takes no layer's output.
        in_branch: Whether features also bypass the norm, as in a residual branch. False for norms
            that all features pass, such as that of a stem.
    """

    producer: nn.Module | None = None
    in_branch: bool = False


@dataclass
class _Record:
    """What the hooks record in the forward pass."""

    written: dict[int, nn.Module] = field(default_factory=dict)  # last writer of a storage
    alive: list[Tensor] = field(default_factory=list)  # so that no storage is reused
    producers: dict[nn.Module, nn.Module | None] = field(default_factory=dict)
    nodes: dict[nn.Module, list[Any]] = field(default_factory=lambda: defaultdict(list))


def trace(network: nn.Module, norms: Iterable[nn.Module], example: Any = None) -> dict:
    """Run a network once and return how it uses its norms.

    Values, statistics and modes of the network do not change.

    Args:
        network: Network before its conversion.
        norms: Norms of the network.
        example: Input of the forward pass, a tensor or a tuple of arguments; None for a random
            frame of 64x64 or 224x224, with the channels of the first convolution.

    Returns:
        A :class:`Use` for each norm; an empty one for norms that do not run.

    Raises:
        ValueError: If the network fails on the example.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        return _trace(network, list(norms), example)
    finally:
        for module, mode in modes.items():
            module.training = mode


def _trace(network: nn.Module, norms: list[nn.Module], example: Any) -> dict:
    record, problem = _Record(), None
    tried = [example] if example is not None else list(_examples(network))
    for candidate in tried:
        record = _Record()
        arguments = candidate if isinstance(candidate, tuple) else (candidate,)
        arguments = tuple(
            a.detach().clone().requires_grad_() if _is_float(a) else a for a in arguments
        )
        try:
            outputs = _run(network, set(norms), arguments, record)
            break
        except Exception as error:
            problem = error
    else:
        shapes = [tuple(t.shape) for t in _tensors(tried)]
        raise ValueError(
            f'{type(network).__name__} fails on inputs of {shapes}: {problem}. Give a valid input '
            'as example='
        ) from problem
    branches = _Branches(outputs, [a for a in arguments if isinstance(a, Tensor)])
    return {
        norm: Use(record.producers.get(norm), any(map(branches.hold, record.nodes[norm])))
        for norm in norms
    }


def _examples(network: nn.Module) -> Iterator[Tensor]:
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    conv = next((m for m in network.modules() if isinstance(m, kinds)), None)
    if conv is None:
        raise ValueError(
            f'{type(network).__name__} has no convolution from which its input shape could be '
            'inferred: give example='
        )
    for size in SIZES:
        space = (size,) * (conv.weight.dim() - 2)
        yield torch.rand(1, conv.in_channels, *space).to(conv.weight)


def _run(network: nn.Module, norms: set[nn.Module], arguments: tuple, record: _Record) -> Any:
    def before(module: nn.Module, inputs: tuple) -> None:
        record.producers.setdefault(module, record.written.get(_storage(inputs[0])))

    def after(module: nn.Module, inputs: tuple, output: Any) -> None:
        for tensor in _tensors(output):
            record.written[_storage(tensor)] = module
            record.alive.append(tensor)
        if module in norms:
            record.nodes[module].append(output.grad_fn)

    handles = []
    for module in network.modules():
        if module in norms:
            handles.append(module.register_forward_pre_hook(before))
        if module in norms or not any(True for _ in module.children()):
            handles.append(module.register_forward_hook(after))
    try:
        with torch.enable_grad():
            return network(*arguments)
    finally:
        for handle in handles:
            handle.remove()


class _Branches:
    """The autograd graph of a forward pass, in the direction of the forward pass."""

    def __init__(self, outputs: Any, inputs: list[Tensor]) -> None:
        self.following: dict[Any, list[Any]] = defaultdict(list)
        left = [t.grad_fn for t in _tensors(outputs) if t.grad_fn is not None]
        seen = set(left)
        self.starts = []
        while left:
            node = left.pop()
            if any(getattr(node, 'variable', None) is x for x in inputs):
                self.starts.append(node)
            for before, _ in node.next_functions:
                if before is None:
                    continue
                self.following[before].append(node)
                if before not in seen:
                    seen.add(before)
                    left.append(before)

    def hold(self, node: Any) -> bool:
        """Whether the nodes behind a node are also reached from the inputs without it."""
        if node is None:
            return False
        after = self._reach(self.following.get(node, ()), without=None)
        return bool(after & self._reach(self.starts, without=node))

    def _reach(self, starts: Iterable[Any], without: Any) -> set[Any]:
        left = [node for node in starts if node is not without]
        found = set(left)
        while left:
            for node in self.following.get(left.pop(), ()):
                if node is not without and node not in found:
                    found.add(node)
                    left.append(node)
        return found


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata  # also on the meta device, where no storage has an address


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield all tensors in nested outputs."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
