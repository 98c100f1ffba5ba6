"""From a config's ``tasks`` to a stream grid: which input each stream has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...core.grid import StreamGrid

ENSEMBLE, FUSED = 'ensemble', 'fused'


@dataclass(frozen=True)
class Plan:
    """Tasks and their inputs by name; the one place where a setting of the paper is stated.

    Args:
        tasks: target domain to its M input domains, in the order of the streams. One target is
            multimodal fusion (section 3.2); targets that are each other's inputs a cycle (3.3);
            several targets of one input multitask (3.4), of several inputs multimodal multitask
            learning (3.5).

    Raises:
        ValueError: no task, no input, tasks with different numbers of inputs, an input twice, or a
            target among its own inputs.

    Example:
        >>> plan = Plan({'rgb': ('normal', 'depth'), 'depth': ('normal', 'rgb')})
        >>> plan.grid
        StreamGrid(tasks=2, modalities=2)
        >>> plan.domains, plan.inputs
        (('normal', 'depth', 'rgb'), ((0, 1), (0, 2)))
    """

    tasks: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        if not self.tasks or not isinstance(self.tasks, Mapping):
            raise ValueError(
                'no task: give each target its inputs, tasks=dict(rgb=["normal", "depth"])'
            )
        counts = {task: len(inputs) for task, inputs in self.tasks.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(
                f'the tasks have different numbers of inputs, {counts}: a stream grid needs as '
                'many for each'
            )
        for task, inputs in self.tasks.items():
            if isinstance(inputs, str) or not inputs:
                raise ValueError(f"task '{task}' has inputs {inputs!r}: give a list of domains")
            if len(set(inputs)) < len(inputs) or ENSEMBLE in inputs:
                raise ValueError(
                    f"task '{task}' has inputs {list(inputs)}: name each once, and none "
                    f"'{ENSEMBLE}'"
                )
            if task in inputs:
                raise ValueError(
                    f"target '{task}' is also one of its inputs {list(inputs)}: take it out"
                )

    @property
    def grid(self) -> StreamGrid:
        """T tasks of M inputs each."""
        return StreamGrid(len(self.tasks), len(next(iter(self.tasks.values()))))

    @property
    def domains(self) -> tuple[str, ...]:
        """The D input domains, each once."""
        return tuple(dict.fromkeys(name for inputs in self.tasks.values() for name in inputs))

    @property
    def inputs(self) -> tuple[tuple[int, ...], ...]:
        """Number of the input domain of each stream, T rows of M."""
        numbers = {name: i for i, name in enumerate(self.domains)}
        return tuple(tuple(numbers[name] for name in row) for row in self.tasks.values())
