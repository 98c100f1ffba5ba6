"""Read checkpoints of unknown origin: they are verified, and nothing in them is executed."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.runner.checkpoint import CheckpointLoader

from .files import write

NAMED = ('classes', 'palette')  # what a file of weights says of its classes


def read_checkpoint(path: str | Path, map_location: Any = 'cpu') -> Any:
    """Read a checkpoint file and verify it.

    Only tensors, numbers, text and mmengine's log buffers are read. The checksums of the file and
    the weights are verified. The Python text of a config in its ``meta`` is dropped, because
    mmengine would execute it on resuming. A ``.safetensors`` file of :func:`write_weights` has
    weights and class names only.

    Args:
        path: File to read.
        map_location: Device of the tensors, as for :func:`torch.load`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ImportError: If safetensors is not installed and the file needs it.
        ValueError: If the file is damaged, is not a checkpoint, holds other objects, or has weights
            that are not finite.
    """
    path = os.path.expanduser(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'the checkpoint {path} does not exist: check its path')
    safe = path.endswith('.safetensors')
    if safe and find_spec('safetensors') is None:
        raise ImportError(f'{path} needs a package that is not installed: pip install safetensors')
    try:
        if safe:
            checkpoint = _read_weights(path, map_location)
        else:
            _verify_archive(path)
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # an unpickler fed with arbitrary bytes may raise anything
        lines = str(error).strip().splitlines() or ['it is empty or not complete']
        raise ValueError(
            f'{path} is no checkpoint of tensors and numbers, or is damaged '
            f'({type(error).__name__}: {lines[0]}): use an older one, or copy it again'
        ) from error
    return _checked(checkpoint, path)


def _read_weights(path: str, map_location: Any) -> dict[str, Any]:
    from safetensors import safe_open

    device = str(map_location or 'cpu')
    with safe_open(path, 'pt', device=device) as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = json.loads((file.metadata() or {}).get('mmcen', '{}'))
    if not isinstance(facts, dict) or not all(isinstance(facts.get(k, []), list) for k in NAMED):
        raise ValueError('its metadata are no lists of classes and colours')
    facts = {key: facts[key] for key in NAMED if key in facts}
    if 'classes' in facts:
        facts['classes'] = tuple(facts['classes'])
    return {'state_dict': state, 'meta': {'dataset_meta': facts or None}}


def write_weights(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Write the weights of a checkpoint as safetensors, floating-point ones in half precision.

    The file also has the names and colours of the classes, as JSON in its metadata. Nothing else
    of the training is in it.

    Args:
        checkpoint: As :func:`read_checkpoint` reads it.
        path: File to write, ``.safetensors``.

    Raises:
        ValueError: If a value is too large for half precision.
    """
    from safetensors.torch import save

    state = {}
    for name, value in checkpoint['state_dict'].items():
        small = value.half() if value.is_floating_point() else value
        if value.is_floating_point() and not bool(small.isfinite().all()):
            raise ValueError(
                f"'{name}' has values above 65504, the largest number of half precision: use the "
                'checkpoint as it is'
            )
        state[name] = small.contiguous()
    meta = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
    facts = {key: meta[key] for key in NAMED if meta.get(key) is not None}
    write(Path(path), save(state, {'mmcen': json.dumps(facts)}))


def _verify_archive(path: str) -> None:
    """Check sizes and checksums: torch reads a damaged archive without an error."""
    if not zipfile.is_zipfile(path):  # the format of torch before 1.6 has no checksums
        return
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError('its entries are compressed, which torch never writes')
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f'the checksum of its entry {damaged} is wrong')


def _checked(checkpoint: Any, path: str) -> Any:
    if not isinstance(checkpoint, Mapping):
        raise ValueError(
            f'{path} holds a {type(checkpoint).__name__}, but a checkpoint is a dict with the '
            'weights: save dict(state_dict=model.state_dict())'
        )
    state, meta = checkpoint.get('state_dict', {}), checkpoint.get('meta') or {}
    if not isinstance(state, Mapping) or not isinstance(meta, Mapping):
        raise ValueError(
            f'state_dict and meta of {path} must be dicts, but are {type(state).__name__} and '
            f'{type(meta).__name__}: save dict(state_dict=model.state_dict())'
        )
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise ValueError(
                f"'{name}' in state_dict of {path} is a {type(value).__name__}, but weights are "
                'tensors: save dict(state_dict=model.state_dict())'
            )
        if value.is_complex():
            raise ValueError(f"'{name}' in {path} has complex numbers, but weights are real")
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(
                f"'{name}' in {path} has values that are not finite: use an older checkpoint"
            )
    return _without_code(checkpoint)


def _without_code(checkpoint: Any) -> Any:
    """Remove configs from ``meta``: mmengine's runner and inferencer would execute them."""
    meta = checkpoint.get('meta') if isinstance(checkpoint, Mapping) else None
    if isinstance(meta, dict):
        for key in ('config', 'cfg'):
            meta.pop(key, None)
    return checkpoint


def find_checkpoint(work_dir: str | Path) -> tuple[Path | None, list[str]]:
    """Find the checkpoint to resume from: the last one, or the newest that can be read.

    Args:
        work_dir: Folder of a training.

    Returns:
        The file, or None if there is no checkpoint; and the faults of newer ones.

    Raises:
        ValueError: If there are checkpoints, but none can be resumed.
    """
    folder, faults = Path(work_dir), []
    named = folder / 'last_checkpoint'
    name = named.read_text(errors='replace').strip() if named.is_file() else ''
    first = [Path(name)] if name else []
    others = [path for path in folder.glob('*.pth') if not path.name.startswith('best_')]
    others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in dict.fromkeys([*(path.absolute() for path in (*first, *others))]):
        try:
            checkpoint = read_checkpoint(path)
        except (ValueError, FileNotFoundError) as error:
            faults.append(str(error))
            continue
        meta = checkpoint.get('meta') or {}
        if {'epoch', 'iter'} <= set(meta) and {'optimizer', 'message_hub'} <= set(checkpoint):
            return path, faults
        faults.append(f'{path} holds weights and no state of a training')
    if others:
        raise ValueError(f'no checkpoint in {work_dir} can be resumed: {"; ".join(faults)}')
    return None, faults


def guard_loading() -> None:
    """Make mmengine load all checkpoints through this module."""
    for prefix, loader in list(CheckpointLoader._schemes.items()):
        own = load_from_local if prefix == '' else _guarded(loader)
        CheckpointLoader.register_scheme(prefix, own, force=True)


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Load a file in place of mmengine's loader, whose name is in the log."""
    return read_checkpoint(filename, map_location)


def _guarded(loader: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(loader)
    def load(*args: Any, **kwargs: Any) -> Any:
        return _without_code(loader(*args, **kwargs))

    return load
