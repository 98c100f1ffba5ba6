"""Check the metadata of an ONNX file, because its origin is unknown.

A pipeline is built through a registry that imports any dotted name, so that only the transforms
listed here, with plain arguments of limited size, are taken from a file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..modalities import read_specs

# Transforms of a test pipeline with the arguments that they may have in a file.
TRANSFORMS = {
    'ForEachModality': {'transforms', 'interpolation', 'pad_val', 'only', 'label'},
    'Resize': {'scale', 'scale_factor', 'keep_ratio', 'interpolation'},
    'Pad': {'size', 'size_divisor', 'pad_val'},
    'EncodeDomains': {'limits', 'palette'},
    'DepthToHHA': {'camera', 'size', 'gravity', 'source', 'name', 'keep', 'step', 'radius'},
    'RelativeDepth': {'modality', 'near', 'missing'},
    'PackModalities': {'meta_keys'},
}
DATASET = ('pipeline', 'size', 'modalities', 'metainfo')
LARGEST = 1e5  # of a number in a pipeline: pixels of an edge, or millimetres
NAME = re.compile(r'[A-Za-z0-9_][A-Za-z0-9_. -]{0,63}')


def check_facts(facts: Any) -> dict[str, Any]:
    """Check the metadata of an exported file.

    Args:
        facts: The metadata, as JSON gives them.

    Returns:
        The known entries; others are left out.

    Raises:
        ValueError: An entry is missing, of another type, or names something that is not allowed.
    """
    if not isinstance(facts, Mapping):
        raise ValueError('they are no JSON object')
    inputs, outputs = facts.get('inputs'), facts.get('outputs')
    images, labels = facts.get('images', []), facts.get('labels', [])
    divisor = facts.get('divisor', 1)
    if not isinstance(inputs, Mapping) or not all(_is_whole(c, 1) for c in inputs.values()):
        raise ValueError(f'inputs must be numbers of channels by name, got {_short(inputs)}')
    lists = all(isinstance(names, list) for names in (outputs, images, labels))
    if not lists or not inputs or not outputs:
        raise ValueError(
            f'outputs, images and labels must be lists of names, got {_short(outputs)}'
        )
    for name in [*inputs, *outputs, *images, *labels]:
        check_output_name(name)
    if len(set(outputs)) < len(outputs) or not set(images) <= set(outputs):
        raise ValueError(f'images {_short(images)} must be some of the outputs {_short(outputs)}')
    if not set(labels) <= set(outputs) - set(images):
        raise ValueError(f'labels {_short(labels)} must be outputs that are no images')
    if not _is_whole(divisor, 1):
        raise ValueError(f'divisor must be a whole number of 1 or more, got {_short(divisor)}')
    checked = dict(
        inputs=dict(inputs), outputs=outputs, images=images, labels=labels, divisor=divisor
    )
    for key, check in (('classes', _is_names), ('palette', _is_colours), ('threshold', _is_number)):
        if facts.get(key) is not None:
            if not check(facts[key]):
                raise ValueError(f'{key} {_short(facts[key])} is not what it should be')
            checked[key] = facts[key]
    config = facts.get('config')
    return checked if config is None else checked | {'config': _check_config(config)}


def check_output_name(name: Any) -> None:
    """Check that a name of an input or output stays in the folder that results are written to.

    Raises:
        ValueError: It is no name, or leads out of the folder.
    """
    parts = name.split('/') if isinstance(name, str) else []
    if not 1 <= len(parts) <= 2 or not all(
        NAME.fullmatch(part) and set(part) != {'.'} and '..' not in part for part in parts
    ):
        raise ValueError(
            f'{_short(name)} is no name of an input or output: use letters, digits, "_", "-", ".", '
            'as NAME or TASK/NAME'
        )


def check_pipeline(stages: Any) -> list[dict]:
    """Check the transforms of a test pipeline.

    Raises:
        ValueError: A transform or an argument is not on the list.
    """
    if not isinstance(stages, Sequence) or not all(isinstance(stage, Mapping) for stage in stages):
        raise ValueError(f'the pipeline must be a list of transforms, got {_short(stages)}')
    for stage in stages:
        kind = stage.get('type')
        allowed = TRANSFORMS.get(kind) if isinstance(kind, str) else None
        if allowed is None:
            raise ValueError(
                f'the transform {_short(kind)} is not one of {", ".join(TRANSFORMS)}, which alone '
                'may come from a file: predict with the config and the checkpoint'
            )
        for key, value in stage.items():
            if key == 'transforms' and key in allowed:
                check_pipeline(value)
            elif key != 'type' and (key not in allowed or not all(map(_is_plain, _leaves(value)))):
                raise ValueError(f'{kind} takes no {_short(key)} = {_short(value)} from a file')
    return list(stages)


def _check_config(config: Any) -> dict[str, Any]:
    """Return the part of a config that states how files become inputs."""
    try:
        dataset = config['test_dataloader']['dataset']
        kept = {key: dataset[key] for key in DATASET if key in dataset}
    except (KeyError, TypeError):
        raise ValueError('config does not say how files are read') from None
    for key in ('modalities', 'metainfo'):
        if not isinstance(kept.get(key, {}), (Mapping, list)):
            raise ValueError(f'{key} {_short(kept[key])} is not what it should be')
    if isinstance(kept.get('modalities'), list) and kept['modalities']:
        read_specs(kept['modalities'])
    size = kept.get('size', [1, 1])
    if not isinstance(size, list) or len(size) != 2 or not all(_is_whole(n, 1) for n in size):
        raise ValueError(f'size must be height and width, got {_short(size)}')
    if kept.get('pipeline') is not None:
        kept['pipeline'] = check_pipeline(kept['pipeline'])
    return {'test_dataloader': {'dataset': kept}}


def _leaves(value: Any) -> Iterator[Any]:
    """Values in nested lists and dicts, and the dicts' keys; a dict with a type is one itself."""
    if isinstance(value, Mapping) and 'type' not in value:
        yield from value
        for part in value.values():
            yield from _leaves(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return bool(NAME.fullmatch(value))
    return value is None or isinstance(value, bool) or _is_number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and abs(value) <= LARGEST


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= LARGEST


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_colours(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(colour, list)
        and len(colour) == 3
        and all(_is_whole(part, 0) and part < 256 for part in colour)
        for colour in value
    )


def _short(value: Any) -> str:
    """A value in an error message."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'
