"""Checkpoints for prediction: of tensors and numbers alone, and of the model at hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from mmengine.runner.checkpoint import _load_checkpoint
from torch import nn


def load_checkpoint(path: str | Path) -> Any:
    """Of a file, or of a place that mmengine fetches from. Nothing but tensors and numbers, and
    what a training writes beside them, which takes torch 2.6.

    Raises:
        ValueError: it is broken, or holds other things.
    """
    if '://' in str(path):
        return _load_checkpoint(str(path), map_location='cpu')
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except (UnpicklingError, EOFError, RuntimeError, OSError) as error:
        raise ValueError(
            f'{path} is no checkpoint of tensors and numbers, or not the whole of one: '
            f'{str(error).splitlines()[0]}'
        ) from error


def load_weights(model: nn.Module, checkpoint: Any) -> None:
    """Into a model, all of them, with what the checkpoint says of classes.

    Raises:
        ValueError: the checkpoint is of another model.
    """
    if not isinstance(checkpoint, Mapping):
        raise ValueError(_foreign(f'it holds a {type(checkpoint).__name__}'))
    state = checkpoint.get('state_dict', checkpoint)
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # shapes
        raise ValueError(_foreign(str(error).splitlines()[-1].strip())) from error
    if missing or unexpected:
        first = [*missing, *unexpected][0]
        raise ValueError(
            _foreign(
                f'{len(missing)} of its tensors are not there and {len(unexpected)} are none '
                f'of its own, the first is {first}'
            )
        )
    model.dataset_meta = (checkpoint.get('meta') or {}).get('dataset_meta')  # type: ignore


def _foreign(why: str) -> str:
    return f'the checkpoint is of another model ({why}): give the config that it was trained with'
