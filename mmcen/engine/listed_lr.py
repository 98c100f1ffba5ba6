"""Learning rates as listed in a paper: one list for each part of the model."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from mmengine.optim import _ParamScheduler
from mmengine.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class ListedLR(_ParamScheduler):
    """Follow, for each parameter group, the list of rates that begins with the group's rate.

    The official code's encoder and decoder use (5e-4, 2.5e-4, 1e-4) and (3e-3, 1.5e-3, 7e-4),
    which have no common factor.

    Args:
        optimizer: Optimizer or wrapper.
        milestones: Epochs (iterations if ``by_epoch=False``) at which the next rate begins,
            increasing.
        rates: Lists of ``len(milestones) + 1`` learning rates.
        kwargs: Arguments of mmengine's schedulers, such as ``by_epoch``.

    Raises:
        ValueError: If a list has another length, or no list begins with a group's rate.
    """

    def __init__(
        self,
        optimizer: Any,
        *args: Any,
        milestones: Sequence[int],
        rates: Sequence[Sequence[float]],
        **kwargs: Any,
    ) -> None:
        self.milestones = list(milestones)
        self.rates = {row[0]: list(row) for row in rates}
        for row in self.rates.values():
            if len(row) != len(self.milestones) + 1:
                raise ValueError(f'{len(self.milestones)} milestones need one rate more, got {row}')
        super().__init__(optimizer, 'lr', *args, **kwargs)

    def _get_value(self) -> list[float]:
        phase = bisect_right(self.milestones, self.last_step)
        values = []
        for rate in self.base_values:
            row = next(
                (r for first, r in self.rates.items() if abs(first - rate) < 1e-6 * first), None
            )
            if row is None:
                raise ValueError(
                    f'a part starts with learning rate {rate}, the rates listed begin with '
                    f'{list(self.rates)}: change param_scheduler.rates together with the '
                    "optimizer's learning rate, or use MultiStepLR"
                )
            values.append(row[phase])
        return values
