"""Shared parts of the converters of official checkpoints."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from ..files import whole_file
from .common import command_parser


def read(path: Path) -> Any:
    """Read a file of torch.save, with tensors and numbers only.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is not a checkpoint.
    """
    # the official code saves its best score as a numpy scalar, which mmcen has declared safe
    with path.open('rb') as file:
        try:
            return torch.load(file, map_location='cpu', weights_only=True)
        except (UnpicklingError, RuntimeError, EOFError, OSError) as error:
            raise ValueError(f'not a complete PyTorch checkpoint of tensors: {error}') from error


def is_state_dict(value: Any) -> bool:
    """Whether a value maps names to tensors."""
    return isinstance(value, Mapping) and all(isinstance(v, Tensor) for v in value.values())


def outline(value: Any) -> Any:
    """Return the first names of a mapping, or the type of a value, for errors."""
    return [*value][:3] if isinstance(value, Mapping) else type(value).__name__


def save(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint atomically."""
    with whole_file(path) as part:
        torch.save(checkpoint, part)


def join_streams(tensors: dict[str, Tensor]) -> Tensor:
    """Join tensors of the streams to one of the model, stream-major: (T*M*C,).

    Raises:
        ValueError: If the streams differ in shape.
    """
    first, *others = tensors.values()
    if any(other.shape != first.shape for other in others):
        raise ValueError(
            f'streams differ in shape: { {k: tuple(v.shape) for k, v in tensors.items()} }'
        )
    return torch.cat([first, *others]) if others else first


def count(names: Iterable[str], pattern: str) -> int:
    """Return one more than the highest index in the names that match a pattern."""
    return 1 + max((int(m[1]) for name in names if (m := re.match(pattern, name))), default=-1)


def complain(what: str, names: list[str]) -> None:
    """Raise ValueError if the list of names is not empty."""
    if names:
        more = f' and {len(names) - 3} more' if len(names) > 3 else ''
        raise ValueError(f'{what}: {", ".join(names[:3])}{more}')


def convert(
    name: str,
    about: str | None,
    convert_file: Callable[[Path], tuple[dict[str, Tensor], dict[str, Any], str]],
    argv: Sequence[str] | None,
) -> None:
    """Run the command line of a converter.

    Args:
        name: Name of the converter.
        about: Description in ``--help``.
        convert_file: Function that converts a file to a state dict, facts to store, and a summary.
        argv: Arguments of the command line.
    """
    parser = command_parser(name, about)
    parser.add_argument('source', type=Path, help='official checkpoint')
    parser.add_argument('destination', type=Path, help='checkpoint to write, as mmengine loads it')
    args = parser.parse_args(argv)
    try:
        state_dict, meta, words = convert_file(args.source)
    except (ValueError, OSError) as error:
        raise ValueError(f'{args.source}: {error}') from error
    meta = dict(converted_from=args.source.name, **meta)
    save({'state_dict': state_dict, 'meta': meta}, args.destination)
    print(f'{args.destination}: {words}, {len(state_dict)} tensors')
