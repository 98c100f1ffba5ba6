"""Load checkpoints for prediction, and check that they fit the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.runner.checkpoint import _load_checkpoint
from torch import nn

from ..checkpoints import read_checkpoint


def load_checkpoint(path: str | Path) -> Any:
    """Read a checkpoint from a file or from an address that mmengine fetches from.

    Raises:
        ValueError: As for :func:`~mmcen.checkpoints.read_checkpoint`.
    """
    if '://' in str(path):
        return _load_checkpoint(str(path), map_location='cpu')
    return read_checkpoint(path)


def load_weights(model: nn.Module, checkpoint: Any) -> None:
    """Load all weights into a model, and the classes that the checkpoint names.

    Raises:
        ValueError: If the checkpoint is of another model.
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
