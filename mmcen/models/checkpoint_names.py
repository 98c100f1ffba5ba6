"""Names and normalisation of inputs, and tasks, that a checkpoint stores about its model.

Two models may have the same shapes although their streams are in another order; a checkpoint would
then load the norms of one stream into another. Inputs that are normalised otherwise than in the
training give wrong predictions, too. All of it is a buffer, because mmengine saves
parameters and buffers only. They are compared whenever a state dict is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

KEY = 'stream_names'  # of the buffer
Statistics = Mapping[str, list[list[float]]]  # mean and standard deviation by modality


class CheckpointError(ValueError):
    """A checkpoint has other streams, tasks, classes or normalisation than its new model."""


def keep_names(
    model: nn.Module,
    tasks: Mapping[str, Iterable[str]],
    channels: Iterable[int],
    statistics: Statistics | None = None,
) -> None:
    """Save names with the weights of a model, and reject checkpoints with other names.

    Checkpoints without names, such as one-stream weights, load as usual.

    Args:
        model: Model that gets the buffer :data:`KEY`, JSON in bytes.
        tasks: Names of the inputs of each task, in the order of the streams.
        channels: Number of channels of each task's output, such as its classes.
        statistics: Mean and standard deviation of each modality; None if they are unknown.

    Raises:
        CheckpointError: When a checkpoint with other names is loaded later.
    """
    names = encode_names(tasks, channels, statistics)
    model.register_buffer(KEY, names)
    model._register_load_state_dict_pre_hook(partial(_compare, names.clone()))


def encode_names(
    tasks: Mapping[str, Iterable[str]],
    channels: Iterable[int],
    statistics: Statistics | None = None,
) -> Tensor:
    """Return the entry :data:`KEY` of a state dict, for a converted checkpoint.

    Args:
        tasks: See :func:`keep_names`.
        channels: See :func:`keep_names`.
        statistics: See :func:`keep_names`.
    """
    known = statistics or {}
    facts = [
        {
            'task': task,
            'inputs': list(inputs),
            'channels': count,
            'statistics': {name: known[name] for name in (*inputs, task) if name in known},
        }
        for (task, inputs), count in zip(tasks.items(), channels, strict=True)
    ]
    with torch.device('cpu'):
        return torch.frombuffer(bytearray(json.dumps(facts).encode()), dtype=torch.uint8)


def _decode(names: Tensor) -> list[dict]:
    try:
        facts = json.loads(bytes(names.tolist()))
        return [
            {key: one[key] for key in ('task', 'inputs', 'channels')}
            | {'statistics': dict(one.get('statistics', {}))}  # converted weights have none
            for one in facts
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f'{KEY} of the checkpoint cannot be read ({error}): it was changed after training'
        ) from error


def _compare(names: Tensor, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Raise CheckpointError unless a state dict has the same names and statistics, or none."""
    saved = state_dict.get(prefix + KEY)
    state_dict[prefix + KEY] = names  # nothing is missing, or of another length
    if saved is None:
        return
    theirs, own = _decode(saved), _decode(names)
    _reject_others('tasks', [one['task'] for one in theirs], [one['task'] for one in own])
    for a, b in zip(theirs, own, strict=True):
        task = f' of task {b["task"]!r}' if len(own) > 1 else ''
        _reject_others(f'modalities{task}', a['inputs'], b['inputs'])
        _reject_others(f'output channels{task}', a['channels'], b['channels'])
        for name in b['statistics']:
            if name in a['statistics']:
                what = f'mean and std of {name!r}'
                _reject_others(what, a['statistics'][name], b['statistics'][name])


def _reject_others(what: str, theirs: Any, own: Any) -> None:
    if theirs != own:
        raise CheckpointError(
            f'the checkpoint has the {what} {theirs}, the model has {own}: state those of the '
            'checkpoint in the config, in their order; to train other ones from its encoder, leave '
            "load_from out and give the backbone init_cfg=dict(type='Pretrained', checkpoint=..., "
            "prefix='backbone.')"
        )


def reject_other_classes(checkpoint: Mapping[str, Any], classes: Iterable[str] | None) -> None:
    """Raise CheckpointError if a checkpoint was trained for other classes, or another order.

    Checkpoints of stock models are accepted, because their encoders are often used for a start.

    Args:
        checkpoint: Checkpoint as mmengine saves it, with the classes in ``meta``.
        classes: Classes of the data set; None if it has none.
    """
    meta = checkpoint.get('meta') or {}
    theirs = (meta.get('dataset_meta') or {}).get('classes')
    known = any(key.split('.')[-1] == KEY for key in checkpoint.get('state_dict') or ())
    if not known or not theirs or not classes or list(theirs) == list(classes):
        return
    own = list(classes)
    place = next(
        (i for i, (a, b) in enumerate(zip(theirs, own, strict=False)) if a != b),
        min(len(theirs), len(own)),
    )
    a, b = (names[place] if place < len(names) else None for names in (list(theirs), own))
    raise CheckpointError(
        f'the checkpoint has {len(theirs)} classes and the data set {len(own)}; class {place} is '
        f'{a!r} there and {b!r} here: give the data set the classes of the checkpoint, in their '
        'order, by metainfo=dict(classes=...)'
    )
