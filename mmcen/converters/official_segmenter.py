"""Convert a checkpoint of the official CEN segmenter (2020) to mmcen.

    mmcen convert-data official-segmenter official.pth.tar converted.pth

The official file is ``{'segmenter': state_dict}``; its names may start with DataParallel's
``module.``. The result is for a ``CENEncoderDecoder`` of ``CENResNet`` and ``RefineNetHead``;
depth, streams, classes and widths are inferred from the tensors. With ``region='all'`` in
``norm_cfg`` the converted model gives the official outputs.

The conversion is strict: every official tensor is used, and every tensor of the model is set.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import convert as convert_network
from ..models.backbones import CENResNet
from ..models.checkpoint_names import KEY, encode_names
from ..models.decode_heads import RefineNetHead
from ..outputs import SEGMENTATION
from . import checkpoints

STAGES = 4
MODALITIES = ('rgb', 'depth')  # of the official training, in its order
# In decode_head: ours to official. {i} counts stages from the finest, {k} from the coarsest as the
# official code; blocks and links count from 0 in {j}, from 1 in {n}.
HEAD_NAMES = {
    'conv_seg': 'clf_conv',
    'stages.{i}.reduce': 'p_ims1d2_outl{k}_dimred',
    'stages.{i}.adapt.{j}.conv1': 'adapt_stage{k}_b.0.{n}_conv',
    'stages.{i}.adapt.{j}.conv2': 'adapt_stage{k}_b.0.{n}_conv_relu_varout_dimred',
    'stages.{i}.fuse': 'adapt_stage{k}_b2_joint_varout_dimred',
    'stages.{i}.pool.convs.{j}': 'mflow_conv_g{k}_pool.0.{n}_outvar_dimred',
    'stages.{i}.refine.{j}.conv1': 'mflow_conv_g{k}_b.0.{n}_conv',
    'stages.{i}.refine.{j}.conv2': 'mflow_conv_g{k}_b.0.{n}_conv_relu_varout_dimred',
    'stages.{i}.project': 'mflow_conv_g{k}_b3_joint_varout_dimred',
}
HEAD_MODULES = {
    ours.format(i=i, j=j): theirs.format(k=STAGES - i, n=j + 1)
    for ours, theirs in HEAD_NAMES.items()
    for i in range(STAGES)
    for j in range(4)
}


class Architecture(NamedTuple):
    """Architecture of an official network."""

    depth: int
    streams: int
    num_classes: int
    width: int  # of the stem; 64 as published
    channels: int  # of the decoder; 256 as published


def convert(official: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Architecture]:
    """Rename and join the tensors of an official segmenter.

    Args:
        official: Official state dict, with or without DataParallel's prefix.

    Returns:
        State dict for ``CENEncoderDecoder``, and the architecture.

    Raises:
        ValueError: If tensors are missing, unknown or of a wrong shape; the first are named.
    """
    official = {name.removeprefix('module.'): value for name, value in official.items()}
    arch = read_architecture(official)
    shapes = target_shapes(arch)
    sources = {name: official_names(name, arch.streams) for name in shapes}
    wanted = [name for names in sources.values() for name in names]
    checkpoints.complain(
        'missing from the checkpoint', [name for name in wanted if name not in official]
    )
    checkpoints.complain('unknown in the checkpoint', sorted(official.keys() - set(wanted)))
    converted = {}
    for name, shape in shapes.items():
        converted[name] = _join(name, {source: official[source] for source in sources[name]})
        if converted[name].shape != shape:
            raise ValueError(
                f'{", ".join(sources[name])} make shape {tuple(converted[name].shape)}, '
                f'ResNet-{arch.depth} with {arch.streams} streams needs {tuple(shape)}'
            )
    return converted, arch


def read_architecture(official: Mapping[str, Tensor]) -> Architecture:
    """Infer depth and sizes from names and shapes.

    Raises:
        ValueError: If the necessary tensors are missing, or fit no ResNet.
    """
    anchors = ('conv1.module.weight', 'bn1.bn_0.weight', 'clf_conv.module.weight')
    checkpoints.complain(
        'missing from the checkpoint', [name for name in anchors if name not in official]
    )
    blocks = tuple(checkpoints.count(official, rf'layer{i}\.(\d+)\.') for i in range(1, STAGES + 1))
    depths = [depth for depth in (50, 101, 152) if CENResNet.arch_settings[depth][1] == blocks]
    if not depths:
        raise ValueError(f'stages of {blocks} blocks fit neither ResNet-50 nor 101 nor 152')
    num_classes, channels = official['clf_conv.module.weight'].shape[:2]
    return Architecture(
        depth=depths[0],
        streams=checkpoints.count(official, r'bn1\.bn_(\d+)\.'),
        num_classes=num_classes,
        width=official['conv1.module.weight'].shape[0],
        channels=channels,
    )


def target_shapes(arch: Architecture) -> dict[str, torch.Size]:
    """Return names and shapes of the model's tensors, without allocating them."""
    with torch.device('meta'):
        backbone = CENResNet(arch.depth, stem_channels=arch.width, base_channels=arch.width)
        convert_network(backbone, modalities=arch.streams, exchange=None)
        head = RefineNetHead(
            [arch.width * 4 * 2**i for i in range(STAGES)],
            arch.channels,
            num_classes=arch.num_classes,
        )
    shapes = {f'backbone.{name}': value.shape for name, value in backbone.state_dict().items()}
    shapes |= {f'decode_head.{name}': value.shape for name, value in head.state_dict().items()}
    return shapes | {'ensemble.alpha': torch.Size((1, arch.streams))}


def official_names(name: str, streams: int) -> list[str]:
    """Return the official tensors of one of ours: one for each stream in a norm, else one."""
    if name == 'ensemble.alpha':
        return ['alpha']
    part, path = name.split('.', 1)
    module, leaf = path.rsplit('.', 1)
    if part == 'decode_head':
        return [f'{HEAD_MODULES[module]}.module.{leaf}']
    if module.endswith('.norm'):
        module = module.removesuffix('.norm')
        return [f'{module}.bn_{m}.{leaf}' for m in range(streams)]
    return [f'{module}.module.{leaf}']


def _join(name: str, tensors: dict[str, Tensor]) -> Tensor:
    if name == 'ensemble.alpha':
        return tensors['alpha'].unsqueeze(0)  # (T, M)
    if name.endswith('num_batches_tracked'):
        return torch.stack([*tensors.values()]).amax()  # the streams share one count
    return checkpoints.join_streams(tensors)


def load(path: Path) -> Mapping[str, Tensor]:
    """Read the official state dict in a file.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is not a checkpoint of the official segmenter.
    """
    checkpoint = checkpoints.read(path)
    state = checkpoint.get('segmenter') if isinstance(checkpoint, Mapping) else None
    if state is None or not checkpoints.is_state_dict(state):
        raise ValueError(
            "expected {'segmenter': state_dict} as the official code saves it, got "
            f'{checkpoints.outline(checkpoint)}'
        )
    return state


def convert_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    state_dict, arch = convert(load(path))
    if arch.streams == len(MODALITIES):
        state_dict[KEY] = encode_names({SEGMENTATION: MODALITIES}, [arch.num_classes])
    words = f'ResNet-{arch.depth}, {arch.streams} streams, {arch.num_classes} classes'
    return state_dict, arch._asdict(), words


def main(argv: Sequence[str] | None = None) -> None:
    checkpoints.convert('official-segmenter', __doc__, convert_file, argv)
