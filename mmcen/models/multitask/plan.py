"""Read the ``tasks`` of a config: the stream grid, and the input of each stream."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ...core.grid import StreamGrid
from ...modalities import check_keys, check_names

KEYS = ('name', 'inputs', 'head')


class Plan:
    """Tasks and their inputs by name; they define the setting of the paper.

    Args:
        tasks: List of tasks, in the order of the streams, each a dict of its ``name`` (the target
            domain), its M ``inputs`` (domains, in the order of the streams) and optionally the
            config of its ``head``. One target is multimodal fusion (section 3.2); targets that are
            inputs of each other are a cycle (3.3); several targets of one input are multitask
            learning (3.4), of several inputs multimodal multitask learning (3.5).

    Attributes:
        tasks: Inputs of each task, by its name.
        heads: Config of the head of each task that states one, by its name.

    Raises:
        TypeError: If ``tasks`` is not a list of dicts.
        ValueError: If there is no task, a task has no inputs, an unknown key, an input twice or its
            own target among them, or if tasks have different numbers of inputs.

    Examples:
        >>> plan = Plan([dict(name='rgb', inputs=['normal', 'depth']),
        ...              dict(name='depth', inputs=['normal', 'rgb'])])
        >>> plan.grid
        StreamGrid(tasks=2, modalities=2)
        >>> plan.domains, plan.inputs
        (('normal', 'depth', 'rgb'), ((0, 1), (0, 2)))
    """

    def __init__(self, tasks: Sequence[Mapping[str, Any]]) -> None:
        _check_form(tasks)
        self.tasks: dict[str, tuple[str, ...]] = {
            task['name']: tuple(task['inputs']) for task in tasks
        }
        self.heads: dict[str, dict] = {
            task['name']: dict(task['head']) for task in tasks if task.get('head')
        }
        counts = {task: len(inputs) for task, inputs in self.tasks.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(
                f'the tasks have different numbers of inputs, {counts}: a stream grid needs the '
                'same number for each'
            )
        for name, inputs in self.tasks.items():
            if name in inputs:
                raise ValueError(
                    f"target '{name}' is also one of its inputs {list(inputs)}: take it out"
                )

    @property
    def grid(self) -> StreamGrid:
        """Stream grid of T tasks with M inputs each."""
        return StreamGrid(len(self.tasks), len(next(iter(self.tasks.values()))))

    @property
    def domains(self) -> tuple[str, ...]:
        """The D input domains, each once."""
        return tuple(dict.fromkeys(name for inputs in self.tasks.values() for name in inputs))

    def groups(self, present: Collection[str]) -> list[tuple[list[int], list[int]]]:
        """Part the streams whose inputs are present into grids.

        Args:
            present: Names of the domains that are present.

        Returns:
            Places of tasks, and of the inputs that all of them have. A task without any input is in
            no group.

        Example:
            >>> cycle = Plan([dict(name='a', inputs=['b', 'c']), dict(name='b', inputs=['c', 'a']),
            ...               dict(name='c', inputs=['a', 'b'])])
            >>> cycle.groups(['a', 'b', 'c']), cycle.groups(['c'])
            ([([0, 1, 2], [0, 1])], [([0], [1]), ([1], [0])])
        """
        by_places: dict[tuple[int, ...], list[int]] = {}
        for t, inputs in enumerate(self.tasks.values()):
            places = tuple(m for m, name in enumerate(inputs) if name in present)
            if places:
                by_places.setdefault(places, []).append(t)
        return [(tasks, list(places)) for places, tasks in by_places.items()]

    @property
    def inputs(self) -> tuple[tuple[int, ...], ...]:
        """Number of the input domain of each stream, T rows of M."""
        numbers = {name: i for i, name in enumerate(self.domains)}
        return tuple(tuple(numbers[name] for name in row) for row in self.tasks.values())


def _check_form(tasks: Any) -> None:
    """Raise unless every task is a dict with a name and a list of inputs."""
    example = "tasks=[dict(name='rgb', inputs=['normal', 'depth'])]"
    if isinstance(tasks, (str, Mapping)) or not isinstance(tasks, Sequence):
        raise TypeError(
            f'tasks is a {type(tasks).__name__}, {tasks!r}: give a list, whose order is the order '
            f'of the streams, {example}'
        )
    if not tasks:
        raise ValueError(f'there is no task: give each target its inputs, {example}')
    for task in tasks:
        if not isinstance(task, Mapping) or not isinstance(task.get('name'), str):
            raise TypeError(f'a task is {task!r}: give a dict with a name and inputs, {example}')
        check_keys('task', task, KEYS)
        inputs = task.get('inputs')
        if isinstance(inputs, str) or not inputs:
            raise ValueError(f"task '{task['name']}' has inputs {inputs!r}: give a list of domains")
        check_names(inputs, f"input of task '{task['name']}'")
    check_names([task['name'] for task in tasks], 'task')
