"""Rewrite ONNX models into equal ones that ONNX Runtime computes in less time."""

from __future__ import annotations

from collections import Counter
from typing import Any

from onnx import helper
from torch import fx, nn

from .padding import PadSame

NCHW_TO_NHWC = [0, 2, 3, 1]


def rewrite(proto: Any, network: nn.Module) -> None:
    """Apply all rewrites of this module to an ONNX model.

    Args:
        proto: Changed in place.
        network: The network that it was exported from.
    """
    _pad_inside(proto.graph, _count_paddings(network))
    nodes: list[Any] = []
    for node in proto.graph.node:
        nodes += _split_pool(node) or [node]
    _replace_nodes(proto.graph, nodes)
    for name in [node.output[0] for node in nodes if node.op_type == 'ArgMax']:
        _channels_last(proto.graph, name)


def _count_paddings(network: nn.Module) -> int:
    """How often a network pads as TensorFlow does."""
    modules = dict(network.named_modules())
    graphs = [(name, m.graph) for name, m in modules.items() if isinstance(m, fx.GraphModule)]
    return sum(
        isinstance(modules[f'{name}.{node.target}'], PadSame)
        for name, graph in graphs
        for node in graph.nodes
        if node.op == 'call_module'
    )


def _pad_inside(graph: Any, count: int) -> None:
    """Let convolutions pad as TensorFlow does, in place of operations on sizes in front of them.

    Args:
        graph: Changed in place, if all paddings are found.
        count: Number of paddings.
    """
    users = Counter(name for node in graph.node for name in node.input)
    pads = {node.output[0]: node for node in graph.node if node.op_type == 'Pad'}
    convs = [
        node
        for node in graph.node
        if node.op_type == 'Conv' and node.input[0] in pads and users[node.input[0]] == 1
    ]
    if not len(convs) == len(pads) == count:
        return
    for conv in convs:
        kept = [one for one in conv.attribute if one.name not in ('pads', 'auto_pad')]
        del conv.attribute[:]
        conv.attribute.extend([*kept, helper.make_attribute('auto_pad', 'SAME_UPPER')])
        conv.input[0] = pads[conv.input[0]].input[0]
    _replace_nodes(graph, [node for node in graph.node if node not in pads.values()])


def _split_pool(node: Any) -> list[Any]:
    """Take the maximum of the columns and then of the rows of a window, if its stride is 1."""
    about = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    kernel, pads = about.get('kernel_shape', []), about.get('pads', [0] * 4)
    plain = about.get('strides', [1, 1]) == about.get('dilations', [1, 1]) == [1, 1]
    padded = about.get('auto_pad', b'NOTSET') == b'NOTSET' and not about.get('ceil_mode')
    if node.op_type != 'MaxPool' or len(node.output) > 1 or not (plain and padded):
        return []
    if len(kernel) != 2 or min(kernel) < 3:
        return []
    (given,), (made,), between = node.input, node.output, f'{node.output[0]}.columns'
    return [
        helper.make_node(
            'MaxPool', [given], [between], f'{node.name}.columns',
            kernel_shape=[kernel[0], 1], pads=[pads[0], 0, pads[2], 0], strides=[1, 1],
        ),
        helper.make_node(
            'MaxPool', [between], [made], f'{node.name}.rows',
            kernel_shape=[1, kernel[1]], pads=[0, pads[1], 0, pads[3]], strides=[1, 1],
        ),
    ]  # fmt: skip


def _channels_last(graph: Any, labels: str) -> None:
    """Resize logits, and take the largest, with the classes of a pixel side by side."""
    users = Counter(name for node in graph.node for name in node.input)
    argmax = next(node for node in graph.node if labels in node.output)
    resize = next(node for node in graph.node if argmax.input[0] in node.output)
    axis = next((one for one in argmax.attribute if one.name == 'axis'), None)
    if resize.op_type != 'Resize' or users[resize.output[0]] > 1 or axis is None or axis.i != 1:
        return
    if len(resize.input) != 4:  # by scales, not sizes
        return
    order = helper.make_tensor(f'{resize.name}.order', 7, [4], NCHW_TO_NHWC)
    graph.initializer.append(order)
    logits, sizes = f'{resize.name}.logits', f'{resize.name}.sizes'
    before = [
        helper.make_node('Transpose', [resize.input[0]], [logits], logits, perm=NCHW_TO_NHWC),
        helper.make_node('Gather', [resize.input[3], order.name], [sizes], sizes),
    ]
    resize.input[0], resize.input[3], axis.i = logits, sizes, 3
    shapes = [one for one in graph.value_info if one.name != resize.output[0]]
    del graph.value_info[:]
    graph.value_info.extend(shapes)
    nodes = list(graph.node)
    place = nodes.index(resize)
    _replace_nodes(graph, [*nodes[:place], *before, *nodes[place:]])


def _replace_nodes(graph: Any, nodes: list[Any]) -> None:
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
