"""Convert a generator of the official CEN image translation (2020) to mmcen.

    mmcen convert-data official-generator checkpoint-gen.pkl converted.pth

The official file is a state dict. The result is for a ``CENTranslator`` of one task and as many
inputs as the file has streams. With ``region='all'`` in ``norm_cfg``, as in
configs/cen/taskonomy_shade-texture_to_rgb_official.py, the converted model gives the official
outputs; with ``test_cfg=dict(dropout=True)`` it uses dropout at test as the official one does.

Two kinds of tensors are left out: norms of the outermost and innermost layers, which the official
forward never calls, and running statistics, which it never reads.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from . import checkpoints

LAYERS = 8  # of encoder and decoder each
UNUSED = re.compile(
    r'(conv1|conv8|deconv8)\.insnorm_|.*\.(running_mean|running_var|num_batches_tracked)$'
)


def convert(official: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Rename and join the tensors of an official generator.

    Args:
        official: Official state dict, with or without DataParallel's prefix.

    Returns:
        State dict for ``CENTranslator``, and the number of streams.

    Raises:
        ValueError: If tensors are missing, unknown or of different shapes; the first are named.
    """
    official = {name.removeprefix('module.'): value for name, value in official.items()}
    streams = checkpoints.count(official, r'conv2\.insnorm_conv\.insnorm_(\d+)\.')
    sources = tensor_names(streams)
    wanted = [name for names in sources.values() for name in names]
    checkpoints.complain('missing from the checkpoint', [n for n in wanted if n not in official])
    unknown = sorted(n for n in official.keys() - set(wanted) if not UNUSED.match(n))
    checkpoints.complain('unknown in the checkpoint', unknown)
    converted = {
        ours: checkpoints.join_streams({name: official[name] for name in theirs})
        for ours, theirs in sources.items()
    }
    if converted['ensemble.alpha'].shape != (streams,):
        raise ValueError(
            f'alpha has shape {tuple(converted["ensemble.alpha"].shape)}, the norms have {streams} '
            'streams'
        )
    converted['ensemble.alpha'] = converted['ensemble.alpha'].unsqueeze(0)  # (T, M)
    return converted, streams


def tensor_names(streams: int) -> dict[str, list[str]]:
    """Map our names to those of the official tensors, one for each stream in a norm."""
    names = {'ensemble.alpha': ['alpha']}
    parts = (('down', 'conv', range(1, LAYERS - 1)), ('up', 'deconv', range(LAYERS - 1)))
    for ours, theirs, normed in parts:
        for i in range(LAYERS):
            conv = f'network.{ours}_convs.{i}' if (ours, i) != ('up', 7) else 'network.output'
            for leaf in ('weight', 'bias'):
                official = f'{theirs}{i + 1}'
                names[f'{conv}.copies.0.{leaf}'] = [f'{official}.{theirs}.module.{leaf}']
                if i in normed:
                    names[f'network.{ours}_norms.{i}.norm.{leaf}'] = [
                        f'{official}.insnorm_{theirs}.insnorm_{m}.{leaf}' for m in range(streams)
                    ]
    return names


def load(path: Path) -> Mapping[str, Tensor]:
    """Read the official state dict in a file.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is not a state dict of an official generator.
    """
    state = checkpoints.read(path)
    if not checkpoints.is_state_dict(state):
        raise ValueError(
            'expected the state dict of a generator, as the official code saves it in '
            f'checkpoint-gen.pkl, got {checkpoints.outline(state)}'
        )
    return state


def convert_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    state_dict, streams = convert(load(path))
    return state_dict, dict(streams=streams), f'generator of {streams} streams'


def main(argv: Sequence[str] | None = None) -> None:
    checkpoints.convert('official-generator', __doc__, convert_file, argv)
