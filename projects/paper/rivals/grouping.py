"""Choose tasks to train together: Task Grouping (Standley et al., ICML 2020), a rival in Table 8.

Networks are trained for sets of tasks; those with the best results for all tasks within a budget
are chosen. In a config the choice is ``encoder=dict(groups=[...])`` of CENUNetGenerator.
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
        serves: Network that is used for each task.
        total: Sum of the tasks' losses.
    """

    networks: tuple[Tasks, ...]
    serves: Mapping[str, Tasks]
    total: float

    def groups(self, tasks: Sequence[str]) -> list[int]:
        """Return the number of each task's network, in the order of ``tasks``."""
        numbers: dict[Tasks, int] = {}
        return [numbers.setdefault(self.serves[task], len(numbers)) for task in tasks]

    @property
    def helpers(self) -> dict[Tasks, list[str]]:
        """Tasks that a network was trained for, but is not used for; they help the others."""
        found = {
            network: [task for task in network if self.serves[task] != network]
            for network in self.networks
        }
        return {network: tasks for network, tasks in found.items() if tasks}


def best_grouping(losses: Mapping[Tasks, Mapping[str, float]], budget: int) -> Grouping:
    """Find the networks with the lowest total loss; each task uses the best network that has it.

    All choices of up to ``budget`` networks are tried, so the result is exact: 36,456 choices of up
    to 4 networks for all 31 sets of 5 tasks. The branch and bound of the paper finds the same
    result faster for many tasks.

    Args:
        losses: Loss of each task, by set of tasks that were trained together. Smaller is better,
            and the scales must be comparable.
        budget: Largest number of networks (encoders).

    Returns:
        The best choice; among equal ones that with the fewest networks, then the first in
        ``losses``.

    Raises:
        ValueError: If there are no losses, the budget is below 1, losses do not fit their tasks, a
            set is given twice in different order, or no choice within the budget has all tasks.

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
    """Yield all choices that have every task, the smallest first."""
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
