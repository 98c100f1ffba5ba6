"""PerTask: copies of one layer for different tasks, in lock step over the folded streams.

If tasks have their own convolutions (decoders of sections 3.4 and 3.5, groups of Task Grouping),
the layers of all tasks still run together, so that their norms can exchange after every layer.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core.grid import StreamGrid


def check_groups(groups: Sequence[int] | str, tasks: int) -> tuple[int, ...]:
    """Return which copy each task uses, from ``'shared'``, ``'task'`` (one copy each), or numbers.

    Returns:
        T numbers in 0..copies-1; every copy is used.

    Raises:
        ValueError: If the word is unknown, the count is wrong, or no task uses a copy.

    Examples:
        >>> check_groups('task', 3), check_groups([0, 0, 1], 3)
        ((0, 1, 2), (0, 0, 1))
    """
    words = {'shared': (0,) * tasks, 'task': tuple(range(tasks))}
    if isinstance(groups, str):
        if groups not in words:
            raise ValueError(
                f"groups must be 'shared', 'task' or one number per task, got '{groups}'"
            )
        return words[groups]
    found = tuple(groups)
    if len(found) != tasks or set(found) != set(range(len(set(found)))):
        raise ValueError(
            f'groups {list(found)} must give each of {tasks} tasks the number of its copy, '
            f'counted from 0 without gaps, such as {list(range(tasks))}'
        )
    return found


class PerTask(nn.Module):
    """Apply each task's copy of a layer to the streams of the task.

    Args:
        make: Function that builds one copy.
        grid: Sizes T and M.
        groups: Copy of each task, see :func:`check_groups`. A single copy runs on all streams at
            once.

    Input and output: ``(T*M*B, C, H, W)``. A checkpoint of a single copy, or of the layer alone,
    loads into all copies.

    Raises:
        ValueError: If ``groups`` is invalid, or a checkpoint has another number of copies.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        grid: StreamGrid,
        groups: Sequence[int] | str = 'task',
    ) -> None:
        super().__init__()
        self.grid = grid
        self.groups = check_groups(groups, grid.tasks)
        self.copies = nn.ModuleList(make() for _ in range(max(self.groups) + 1))

    def forward(self, x: Tensor) -> Tensor:
        if len(self.copies) == 1:
            return self.copies[0](x)
        return self.grid.fold(torch.stack(self.by_task(x), 1))

    def by_task(self, x: Tensor) -> list[Tensor]:
        """Return the outputs of the tasks, T of ``(B, M, C', H', W')``; C' may differ."""
        streams = self.grid.unfold(x)  # (B, T, M, C, H, W)
        outputs: list[Tensor] = [x] * self.grid.tasks
        for i, copy in enumerate(self.copies):
            present = self.grid.present('tasks')
            own = [k for k, t in enumerate(present) if self.groups[t] == i]
            if not own:
                continue
            part = streams if len(own) == self.grid.tasks else streams[:, _as_slice(own)]
            grid = StreamGrid(len(own), self.grid.modalities)
            y = grid.unfold(copy(grid.fold(part)))  # (B, tasks, M, ...)
            for t, one in zip(own, y.unbind(1), strict=True):
                outputs[t] = one
        return outputs

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        count = len(self.copies)
        for name in self.copies[0].state_dict():
            if prefix + name in state_dict:  # of a layer without copies, such as ImageNet's
                state_dict[f'{prefix}copies.0.{name}'] = state_dict.pop(prefix + name)
            given = [k for k in state_dict if _is_copy(k, f'{prefix}copies.', name)]
            if len(given) == 1:
                first = state_dict[given[0]]
                state_dict.update({f'{prefix}copies.{i}.{name}': first for i in range(count)})
            elif given and len(given) != count:
                raise ValueError(
                    f'{prefix}copies: the checkpoint has {len(given)}, the model {count} for the '
                    f'groups {list(self.groups)}: build the model as it was trained'
                )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        return f'groups={self.groups}'


def _is_copy(key: str, prefix: str, name: str) -> bool:
    number, _, rest = key.removeprefix(prefix).partition('.')
    return key.startswith(prefix) and number.isdigit() and rest == name


def _as_slice(numbers: list[int]) -> slice | list[int]:
    """Return consecutive numbers as a slice, which gives a view."""
    first, last = numbers[0], numbers[-1]
    return slice(first, last + 1) if last - first + 1 == len(numbers) else numbers
