"""When a training under a budget chooses its channels, in numbers of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

FIRST = ('fixed', 'gamma', 'none', 'keep')


@dataclass(frozen=True)
class BudgetSchedule:
    """Steps after which channels are chosen, and the share that is wanted in between.

    Args:
        begin: Part of the training, 0..1, after which channels are chosen again.
        end: Part of the training, 0..1, after which the choice stays. There is at least one choice.
        interval: Steps between two choices.
        first: The choice before ``begin``: ``'fixed'``, ``'gamma'``, ``'none'``, or ``'keep'`` for
            that of a loaded checkpoint.
        ramp: Share at the start, which grows linearly from ``begin`` to the budget's share at the
            last choice; None for the budget's share from the first step.
        shrink: Steps in which the scaling factors of newly chosen channels, and of no others, go to
            zero before these channels are exchanged; at most ``interval``. It does not depend on
            the optimizer (a proximal step). Best with ``first='none'``.

    Raises:
        ValueError: If an option is unknown or outside its range.

    Examples:
        >>> list(BudgetSchedule(begin=0.2, end=0.5, interval=10).choices(100))
        [20, 30, 40, 50]
    """

    begin: float = 0.1
    end: float = 0.75
    interval: int = 20
    first: str = 'fixed'
    ramp: float | None = None
    shrink: int = 0

    def __post_init__(self) -> None:
        check_word('first', self.first, FIRST)
        if not 0 <= self.begin <= self.end <= 1:
            raise ValueError(f'0 <= begin <= end <= 1 must hold, got {self.begin} and {self.end}')
        if not isinstance(self.interval, int) or self.interval < 1:
            raise ValueError(f'interval is a number of steps, 1 or more, got {self.interval!r}')
        if not isinstance(self.shrink, int) or not 0 <= self.shrink <= self.interval:
            raise ValueError(
                f'shrink must be within 0..interval={self.interval}, got {self.shrink}'
            )

    def choices(self, total: int) -> range:
        """Return the steps, counted from 1, after which channels are chosen again.

        Args:
            total: Number of steps of the training.
        """
        # the small number is for products such as 0.1 * 30, which is a little above 3
        begin, end = math.ceil(self.begin * total - 1e-9), int(self.end * total + 1e-9)
        multiples = range(0, end + 1, self.interval)[math.ceil(max(begin, 1) / self.interval) :]
        return multiples or range(max(1, end), max(1, end) + 1)

    def share_at(self, share: float, iteration: int, total: int) -> float:
        """Return the share that is wanted after a number of steps, of a budget of ``share``."""
        choices = self.choices(total)
        if self.first == 'none' and iteration < choices[0]:
            return 0.0
        if self.ramp is None or iteration >= choices[-1]:
            return share
        begin = self.begin * total
        if iteration <= begin:
            return self.ramp
        return self.ramp + (share - self.ramp) * (iteration - begin) / (choices[-1] - begin)

    def steps_to_zero(self, iteration: int, total: int) -> int | None:
        """Return the number of steps after this one in which new channels shrink, None for none."""
        choices = self.choices(total)
        if not self.shrink or iteration < choices[0]:
            return None
        last = choices[min(len(choices) - 1, (iteration - choices[0]) // choices.step)]
        left = min(self.shrink, total - last) - (iteration - last)
        return left if left >= 0 else None


def check_word(name: str, word: str, words: Sequence[str]) -> None:
    """Raise ValueError unless an option is one of some words."""
    if word not in words:
        raise ValueError(f"{name} must be one of {words}, got '{word}'")
