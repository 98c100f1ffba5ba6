"""Predictions of a frame: ``sample.outputs``, the same for segmentors and multi-task models.

``sample.outputs.<task>.<name>`` holds the fields of one output: ``pred_sem_seg`` (a class map),
``seg_logits`` where logits are kept, or ``pred`` (an image, 0..255). ``<name>`` is ``ensemble`` or
the name of a stream, which is the name of its modality. The task of a segmentor is
:data:`SEGMENTATION`. ``sample.targets.<task>`` holds the target of an image task, if the batch has
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.structures import BaseDataElement

ENSEMBLE = 'ensemble'
FUSED = 'fused'  # the stream that a fusion layer leaves
SEGMENTATION = 'semseg'


class ByName(BaseDataElement):
    """Values by name, in the order in which they were set.

    mmengine's data elements keep their names in a set, whose order differs from run to run.

    Examples:
        >>> ByName(rgb=1, depth=2, area=3).keys()
        ['rgb', 'depth', 'area']
    """

    def keys(self) -> list[str]:
        """Return the names."""
        known = set(super().keys())
        return [name for name in vars(self) if name in known]


def outputs_of(tasks: Mapping[str, Mapping[str, BaseDataElement]]) -> ByName:
    """Return the ``outputs`` of a sample.

    Args:
        tasks: Outputs by task and name, the ensemble first.
    """
    return ByName(**{task: ByName(**by_name) for task, by_name in tasks.items()})


def fields_of(sample: BaseDataElement, names: Iterable[str]) -> BaseDataElement:
    """Return those of the named fields that a sample has, as one output."""
    return BaseDataElement(**{name: sample.get(name) for name in names if name in sample})


def flat_name(task: str, name: str) -> str:
    """Return the flat name of an output: ``<task>/<name>``, or ``<name>`` for a segmentor.

    Examples:
        >>> flat_name('normal', 'rgb'), flat_name(SEGMENTATION, 'rgb')
        ('normal/rgb', 'rgb')
    """
    return name if task == SEGMENTATION else f'{task}/{name}'


def flatten(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return outputs of all tasks by their :func:`flat_name`."""
    return {flat_name(t, name): x for t, by_name in tasks.items() for name, x in by_name.items()}
