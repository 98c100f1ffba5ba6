"""From folded streams to a graph of plain layers, each stream with its own.

What a folded layer does to the batch it does to each stream alone, so that the graph of the folded
network, traced once, is the graph of every stream. Streams meet at the norms that exchange, and
nowhere else.
"""

import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from inspect import signature
from operator import itemgetter
from typing import Any

import torch
from mmseg.models.utils import Upsample, resize
from torch import Tensor, fx, nn
from torch.nn import functional

from ..core import ExchangeNorm, PrivateCopies, StreamGrid
from ..layers import PerTask
from ..models.decode_heads.refinenet_head import max_pool
from .padding import same_padding
from .parts import (
    Exchange,
    fold_norm,
    is_dense,
    is_plain,
    norm_of_stream,
    plain_conv,
    take_channels,
    take_inputs,
    works_by_channel,
)

ACTIVATIONS = (nn.ReLU, nn.ReLU6)
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


class _Tracer(fx.Tracer):
    """Layers that know of streams, and those that a framework has subclassed, stay whole."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(max_pool, resize))
        # also where mmseg's base classes call it, which are no modules of their own
        self._autowrap_search += [
            m for m in sys.modules.values() if getattr(m, '__dict__', {}).get('resize') is resize
        ]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = (ExchangeNorm, PerTask, PrivateCopies, Upsample, *CONVOLUTIONS)
        stays = isinstance(m, whole) or getattr(m, 'mixes_streams', False)
        return stays or super().is_leaf_module(m, module_qualified_name)


def trace(body: nn.Module) -> fx.Graph:
    """Graph of a folded network.

    Raises:
        ValueError: its forward depends on the values or the shape of its input.
    """
    try:
        graph = _Tracer().trace(body)
    except fx.proxy.TraceError as error:
        raise ValueError(
            f'the network cannot be taken apart ({error}): export it as it is, without deploying'
        ) from error
    for node in graph.nodes:
        if node.target is resize:  # it looks at sizes, to warn of some
            given = signature(resize).bind(*node.args, **node.kwargs).arguments
            node.target, node.args = functional.interpolate, (given.pop('input'),)
            node.kwargs = {name: value for name, value in given.items() if name != 'warning'}
    return graph


class Unroller:
    """Builds a graph, stream by stream.

    Args:
        grid: of the streams.
    """

    def __init__(self, grid: StreamGrid) -> None:
        self.grid = grid
        self.graph = fx.Graph()
        self.parts = nn.Module()
        self._count = 0
        self._shared: dict[int, str] = {}
        self._made: dict[Any, fx.Node] = {}

    def add(self, part: nn.Module, *args: Any) -> fx.Node:
        """Call a layer on nodes. A layer has its weights once, and works once on the same nodes:
        streams that have the same input are one up to their first private norm."""
        if id(part) not in self._shared:
            self._shared[id(part)] = f'part{self._count}'
            self._count += 1
            self.parts.add_module(self._shared[id(part)], part)
        name = self._shared[id(part)]
        return self._once((name, repr(args)), lambda: self.graph.call_module(name, args))

    def _once(self, key: Any, make: Callable[[], fx.Node]) -> fx.Node:
        """The node that was made for this key, or a new one."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def part(self, node: fx.Node) -> nn.Module | None:
        """The layer that a node calls."""
        return self.parts.get_submodule(str(node.target)) if node.op == 'call_module' else None

    def unroll(self, body: nn.Module, inputs: Sequence[fx.Node]) -> list[Any]:
        """Copy the graph of a folded network for every stream.

        Args:
            body: folded features to outputs, ``(T*M*B, C, H, W)`` to any structure of such.
            inputs: the input of each stream, T*M nodes.

        Returns:
            What the network gives, of each stream.

        Raises:
            ValueError: a layer that mixes streams in another way than by exchange.
        """
        streams = self._all
        values: list[dict[fx.Node, Any]] = [{} for _ in streams]
        results: list[Any] = []
        plain: dict[int, list[nn.Module]] = {}
        for node in trace(body).nodes:
            if node.op == 'placeholder':
                made = list(inputs)
            elif node.op == 'output':
                results = [fx.map_arg(node.args[0], values[s].__getitem__) for s in streams]
                continue
            elif node.op == 'call_module':
                layer = body.get_submodule(str(node.target))
                given = (*node.args, *node.kwargs.values())  # layers are called with tensors alone
                own = [fx.map_arg(given, values[s].__getitem__) for s in streams]
                made = self._layer(layer, own, plain)
            else:
                made = [self._copy(node, values[s].__getitem__) for s in streams]
            for s in streams:
                values[s][node] = made[s]
        return results

    def _copy(self, node: fx.Node, of_stream: Callable[[fx.Node], Any]) -> fx.Node:
        if node.op == 'get_attr':
            raise ValueError(f"the network's own tensor {node.target} is of no layer")
        args, kwargs = fx.map_arg((node.args, node.kwargs), of_stream)
        # streams may share what a norm gives: nothing is changed in place
        target = node.target
        if node.op == 'call_method':
            target = str(target).removesuffix('_')
        if 'inplace' in kwargs:
            kwargs = {**kwargs, 'inplace': False}
        key = (node.op, target, repr((args, kwargs)))
        return self._once(key, lambda: self.graph.create_node(node.op, target, args, kwargs))

    @property
    def _all(self) -> range:
        return range(self.grid.size)

    def _layer(
        self, layer: nn.Module, own: list[Any], plain: dict[int, list[nn.Module]]
    ) -> list[fx.Node]:
        if getattr(layer, 'mixes_streams', False):
            raise ValueError(
                f'{type(layer).__name__} is not exchange and cannot be deployed: export the model '
                'as it is, without deploying'
            )
        if isinstance(layer, ExchangeNorm):
            return self._activate(layer, self._exchange(layer, own), plain)
        if isinstance(layer, PrivateCopies):
            copies = [layer.copies[stream] for stream in self.grid.streams]
        elif isinstance(layer, PerTask):
            copies = [layer.copies[layer.groups[self._place(layer.grid, s)[0]]] for s in self._all]
        else:
            copies = [layer] * len(own)
        made = []
        for copy, given in zip(copies, own, strict=True):
            args = given
            for part in self._plain(copy, plain):
                args = (self.add(part, *args),)
            made.append(args[0])
        return made

    def _plain(self, layer: nn.Module, plain: dict[int, list[nn.Module]]) -> list[nn.Module]:
        """A layer of the network's own, or two: the model may go on training."""
        if id(layer) not in plain:
            padding = same_padding(layer)
            stock = padding is not None or is_plain(layer)
            new: Any = plain_conv(layer) if stock else deepcopy(layer).eval()
            if hasattr(new, 'inplace'):
                new.inplace = False
            plain[id(layer)] = [padding, new] if padding is not None else [new]
        return plain[id(layer)]

    def _place(self, grid: StreamGrid, s: int) -> tuple[int, int]:
        """(t, m) of stream s of those present in the grid of a layer, which may be that of a single
        task, or one whose tasks are all streams."""
        stream, (tasks, modalities) = self.grid.streams[s], self.grid.sizes
        t, m = divmod(stream, modalities)
        if grid == self.grid:
            return t, m
        if grid.sizes == (1, 1):
            return 0, 0
        if grid.sizes == (tasks * modalities, 1):
            return stream, 0
        if grid.sizes == (1, modalities):
            return 0, m
        raise ValueError(f'a layer is built for {grid}, the model has {self.grid}')

    def _exchange(self, norm: ExchangeNorm, own: list[Any]) -> list[fx.Node]:
        places = [self._place(norm.grid, s) for s in self._all]
        numbers = [t * norm.grid.sizes[1] + m for t, m in places]
        first = norm.first_part(self.grid.modalities if norm.grid.sizes[1] > 1 else 1)
        sources = [
            self.add(norm_of_stream(norm, first + number), *args)
            for number, args in zip(numbers, own, strict=True)
        ]
        if not norm.exchanges:
            return sources
        if norm.replacement is not None:
            raise ValueError(
                f'{norm.replacement} is an ablation and cannot be deployed: only the mean of the '
                'others can'
            )
        mask = norm.exchange_mask().flatten(0, 1)  # (T*M, C)
        axis = 0 if norm.axis == 'tasks' else 1
        made = []
        for s, place in enumerate(places):
            group = [
                k for k, other in enumerate(places)
                if other[1 - axis] == place[1 - axis] and self._same_task(norm, s, k)
            ]  # fmt: skip
            nodes = [sources[k] for k in group]
            replaced = mask[numbers[s]].cpu()
            made.append(
                self.add(Exchange(replaced, group.index(s), len(group)), *nodes)
                if replaced.any()
                else sources[s]
            )
        return made

    def _activate(
        self, norm: ExchangeNorm, own: list[fx.Node], plain: dict[int, list[nn.Module]]
    ) -> list[fx.Node]:
        """The activation that a norm of timm brings, behind the exchange."""
        for part in () if norm.after is None else norm.after.children():
            if not isinstance(part, nn.Identity):
                (new,) = self._plain(part, plain)
                own = [self.add(new, y) for y in own]
        return own

    def _same_task(self, norm: ExchangeNorm, s: int, k: int) -> bool:
        """Layers of a single task exchange inside the task."""
        if norm.grid == self.grid:
            return True
        return s // self.grid.modalities == k // self.grid.modalities

    def finish(self, outputs: Sequence[fx.Node]) -> fx.GraphModule:
        """Prune unused parts and channels, and fold norms into convolutions."""
        self.graph.output(tuple(outputs))
        self.graph.eliminate_dead_code(lambda node: node.op in ('placeholder', 'output'))
        self._remove_identities()
        self._fold_norms()
        self._activate_sources()
        self._leave_out_channels()
        self._leave_channels_joined()
        self.graph.lint()
        used = {str(n.target) for n in self.graph.nodes if n.op == 'call_module'}
        for name in [name for name, _ in self.parts.named_children() if name not in used]:
            delattr(self.parts, name)
        return fx.GraphModule(self.parts, self.graph)

    def _remove_identities(self) -> None:
        for node in list(self.graph.nodes):
            if isinstance(self.part(node), (nn.Identity, nn.Dropout, nn.Dropout2d)):
                node.replace_all_uses_with(node.args[0])
                self.graph.erase_node(node)

    def _fold_norms(self) -> None:
        for node in list(self.graph.nodes):
            norm = self.part(node)
            if not isinstance(norm, (nn.BatchNorm2d, nn.InstanceNorm2d)):
                continue
            before = node.args[0]
            conv: Any = self.part(before) if isinstance(before, fx.Node) else None
            if not is_plain(conv) or len(before.users) > 1:
                continue
            folded = fold_norm(conv, norm)
            if folded is not None:
                with self.graph.inserting_before(node):
                    new = self.add(folded, *before.args)
                node.replace_all_uses_with(new)
                self.graph.erase_node(node)
                self.graph.erase_node(before)

    def _leave_out_channels(self) -> None:
        """Prune channels of sources that only exchange layers read."""
        computed: dict[fx.Node, Tensor] = {}
        for node in list(self.graph.nodes):
            readers: list[Any] = [self.part(user) for user in node.users]
            if not readers or not all(isinstance(reader, Exchange) for reader in readers):
                continue
            reads = [
                (i != reader.own, reader.reads[i])
                for user, reader in zip(node.users, readers, strict=True)
                for i, source in enumerate(user.args)
                if source is node
            ]
            channels = _by_reader([read for _, read in sorted(reads, key=itemgetter(0))])
            new = self._narrow(node, channels)
            if new is not None:
                computed[new] = channels
        for node in self.graph.nodes:
            reader = self.part(node)
            if isinstance(reader, Exchange):
                every = torch.arange(reader.channels)
                reader.compress([computed.get(source, every) for source in node.args])

    def _activate_sources(self) -> None:
        """Activate in front of an exchange of two streams, not behind it.

        ONNX Runtime computes an activation together with the convolution in front.
        """
        kinds: dict[type[nn.Module], nn.Module] = {}
        for node in list(self.graph.nodes):
            users = list(node.users)
            wanted = {self._activation(user) for user in users}
            exchanged = any(isinstance(self.part(user), Exchange) for user in users)
            kind = wanted.pop() if exchanged and len(wanted) == 1 else None
            if kind is not None:
                with self.graph.inserting_after(node):
                    new = self.add(kinds.setdefault(kind, kind()), node)
                for user in users:
                    user.replace_input_with(node, new)
        for node in list(self.graph.nodes):
            before = node.args[0] if type(self.part(node)) in ACTIVATIONS else None
            if not isinstance(before, fx.Node):
                continue
            exchange = isinstance(self.part(before), Exchange)
            sources: list[Any] = list(before.args) if exchange else [before]
            if all(type(self.part(source)) is type(self.part(node)) for source in sources):
                node.replace_all_uses_with(before)  # an activation twice is one
                self.graph.erase_node(node)

    def _activation(self, node: fx.Node) -> type[nn.Module] | None:
        """Type of an activation, also of the only one behind an exchange of two streams."""
        if isinstance(self.part(node), Exchange) and len(node.args) == 2 and len(node.users) == 1:
            (node,) = node.users
        kind: Any = type(self.part(node))
        return kind if kind in ACTIVATIONS else None

    def _leave_channels_joined(self) -> None:
        """Order the weights behind an exchange as its channels come, not these by an operation."""
        for node in list(self.graph.nodes):
            exchange = self.part(node)
            users = list(node.users)
            if not isinstance(exchange, Exchange) or not all(
                is_dense(self.part(user)) for user in users
            ):
                continue
            channels = exchange.leave_joined()
            for user in users:
                conv = self.part(user)
                assert conv is not None
                with self.graph.inserting_before(user):
                    new = self.add(take_inputs(conv, channels), *user.args)
                user.replace_all_uses_with(new)
                self.graph.erase_node(user)

    def _narrow(self, node: fx.Node, channels: Tensor) -> fx.Node | None:
        """The layer of a source, with some of its channels alone: a convolution, or layers behind
        one that work channel by channel."""
        chain = [node]
        while not is_dense(self.part(chain[-1])):
            before = chain[-1].args[0] if chain[-1].args else None
            by_channel = works_by_channel(self.part(chain[-1]))
            if not by_channel or not isinstance(before, fx.Node) or len(before.users) > 1:
                return None
            chain.append(before)
        args = chain[-1].args
        with self.graph.inserting_before(node):
            for old in reversed(chain):
                part = self.part(old)
                assert part is not None
                new = self.add(take_channels(part, channels), *args)
                args = (new,)
        node.replace_all_uses_with(new)
        for old in chain:
            self.graph.erase_node(old)
        return new


def _by_reader(reads: Sequence[Tensor]) -> Tensor:
    """Channels that are read, those with the same readers together: a slice for each reader.

    Args:
        reads: Channels by reader; the first one is the stream's own, if it reads any.
    """
    first, *others = (set(read.tolist()) for read in reads)
    channels = sorted(
        first.union(*others), key=lambda c: (c not in first, *(c in other for other in others), c)
    )
    return torch.tensor(channels or [0])
