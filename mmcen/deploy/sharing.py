"""Write the weights that streams share once into an ONNX file.

A folded norm scales the weights of a convolution differently for each stream. The file has the
weights before that, and operations on constants, which ONNX Runtime computes when it loads it.
"""

from __future__ import annotations

from typing import Any

from onnx import helper, numpy_helper
from torch import nn

from .parts import Scaled


def share_weights(proto: Any, network: nn.Module) -> None:
    """Replace the weights that were made of the same ones by operations on these.

    Args:
        proto: ONNX model of the network, changed in place.
        network: Deployed network with names of parameters as in the ONNX model.
    """
    stored = {one.name: one for one in proto.graph.initializer}
    users: dict[nn.Module, dict[str, Scaled]] = {}
    for name, module in network.named_modules():
        scaled = getattr(module, 'scaled', None)
        if scaled is not None and f'{name}.weight' in stored:
            users.setdefault(scaled.conv, {})[f'{name}.weight'] = scaled
    nodes, constants = [], []
    for number, (conv, made) in enumerate(users.items()):
        if len(made) < 2:
            continue
        whole: Any = conv.weight
        shared = f'shared{number}'
        constants.append(numpy_helper.from_array(whole.detach().numpy(), shared))
        for weight, scaled in made.items():
            source = shared
            for axis, taken in enumerate((scaled.rows, scaled.columns)):
                if taken is not None:
                    index, before, source = f'{weight}.{axis}', source, f'{weight}.taken{axis}'
                    constants.append(numpy_helper.from_array(taken.numpy(), index))
                    nodes.append(
                        helper.make_node('Gather', [before, index], [source], source, axis=axis)
                    )
            scale = f'{weight}.scale'
            by_row = scaled.scale.view(-1, 1, 1, 1).numpy()
            constants.append(numpy_helper.from_array(by_row, scale))
            nodes.append(helper.make_node('Mul', [source, scale], [weight], weight))
            del stored[weight]
    kept = [*stored.values(), *constants]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    later = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *later])
