"""Which tasks to train together: Task Grouping (Standley et al., ICML 2020), a rival in Table 8.

Networks are trained for sets of tasks; of them those are chosen that serve all tasks best within a
budget. In a config the choice is ``encoder=dict(groups=[...])`` of CENUNetGenerator.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

Tasks = tuple[str, ...]


@dataclass(frozen=True)
class Grouping:
    """Chosen networks, by the tasks that each was trained for.

    Attributes:
        networks: The chosen sets of tasks.
        serves: Which of them serves each task.
        total: Sum of the tasks' losses.
    """

    networks: tuple[Tasks, ...]
    serves: Mapping[str, Tasks]
    total: float

    def groups(self, tasks: Sequence[str]) -> list[int]:
        """Number of the network of each of ``tasks``, in their order, counted as they come up."""
        numbers: dict[Tasks, int] = {}
        return [numbers.setdefault(self.serves[task], len(numbers)) for task in tasks]

    @property
    def helpers(self) -> dict[Tasks, list[str]]:
        """Tasks that a network was trained for without serving them: for the others' good."""
        found = {
            network: [task for task in network if self.serves[task] != network]
            for network in self.networks
        }
        return {network: tasks for network, tasks in found.items() if tasks}


def best_grouping(losses: Mapping[Tasks, Mapping[str, float]], budget: int) -> Grouping:
    """The networks of least total loss, each task served by the best of them that has it.

    Tries all choices of up to ``budget`` networks, so the result is exact: 36,456 choices of up to
    4 networks where all 31 sets of 5 tasks were trained. The branch and bound of the paper finds
    the same sooner, which pays for many tasks.

    Args:
        losses: A set of tasks that were trained together to the loss of each of them; smaller is
            better, and on scales that may be added.
        budget: Number of networks (encoders) at most.

    Returns:
        The best; of equal ones that with the fewest networks, then the first in ``losses``.

    Raises:
        ValueError: No losses, a budget below 1, losses that do not fit their tasks, a set named
            twice in different order, a task that no choice within the budget serves.

    Examples:
        >>> losses = {('a',): {'a': 3.0}, ('b',): {'b': 2.0}, ('a', 'b'): {'a': 1.0, 'b': 4.0}}
        >>> best = best_grouping(losses, budget=2)
        >>> best.serves, best.total
        ({'a': ('a', 'b'), 'b': ('b',)}, 3.0)
    """
    _check(losses, budget)
    tasks = tuple(dict.fromkeys(task for network in losses for task in network))
    found = min(_complete(losses, tasks, budget), key=lambda one: one.total, default=None)
    if found is None:
        raise ValueError(
            f'no {budget} of the {len(losses)} networks have all of {list(tasks)}: raise the '
            'budget, or train networks for larger sets of tasks'
        )
    return found


def _complete(
    losses: Mapping[Tasks, Mapping[str, float]], tasks: Tasks, budget: int
) -> Iterator[Grouping]:
    """All choices that serve every task, the smallest first."""
    for count in range(1, min(budget, len(losses)) + 1):
        for chosen in combinations(losses, count):
            if all(any(task in network for network in chosen) for task in tasks):
                serves = {task: _best(losses, chosen, task) for task in tasks}
                total = sum(losses[network][task] for task, network in serves.items())
                yield Grouping(chosen, serves, float(total))


def _best(
    losses: Mapping[Tasks, Mapping[str, float]], chosen: tuple[Tasks, ...], task: str
) -> Tasks:
    return min(
        (network for network in chosen if task in network),
        key=lambda network: losses[network][task],
    )


def _check(losses: Mapping[Tasks, Mapping[str, float]], budget: int) -> None:
    if not losses or budget < 1:
        raise ValueError(
            f'{len(losses)} networks and a budget of {budget}: give the losses of 1 network or '
            'more, and a budget of 1 or more'
        )
    seen: dict[frozenset[str], Tasks] = {}
    for network, own in losses.items():
        if set(own) != set(network) or len(set(network)) != len(network):
            raise ValueError(f'network {network} has losses of {list(own)}: give one for each task')
        if any(math.isnan(loss) for loss in own.values()):
            raise ValueError(f'network {network} has losses {dict(own)}: one is not a number')
        first = seen.setdefault(frozenset(network), network)
        if first != network:
            raise ValueError(f'networks {first} and {network} are of the same tasks: keep one')
