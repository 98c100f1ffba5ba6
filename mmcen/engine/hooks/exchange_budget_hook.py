"""Exchange a given share of the channels, chosen while training."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from ...budget import BudgetSchedule, ExchangeBudget
from ...modalities import nearest


def check_names(what: str, given: Mapping[str, Any], kind: type) -> None:
    """Raise ValueError if an argument is unknown."""
    known = [name for name in signature(kind).parameters if name != 'model']
    for name in [name for name in given if name not in known]:
        if name in signature(BudgetSchedule).parameters:
            fix = f': it belongs to schedule=dict({name}=...)'
        else:
            fix = f'{nearest(name, known)}: choose of {known}'
        raise ValueError(f'{what} has no argument {name!r}{fix}')


@HOOKS.register_module()
class ExchangeBudgetHook(Hook):
    """Run an :class:`~mmcen.budget.ExchangeBudget` in a training.

    :class:`ExchangeMonitorHook` reports the wanted share, the exchanged share and the churn.

    Args:
        schedule: Arguments of :class:`~mmcen.budget.BudgetSchedule`.
        kwargs: Other arguments of ExchangeBudget.

    Raises:
        ValueError: If an argument is unknown or outside its range; in a training, if an EMAHook has
            ``update_buffers=True``.
    """

    def __init__(self, schedule: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        check_names('schedule', schedule or {}, BudgetSchedule)
        check_names('ExchangeBudgetHook', kwargs, ExchangeBudget)
        self.schedule = BudgetSchedule(**(schedule or {}))
        self.kwargs = kwargs

    def make_budget(self, model: nn.Module) -> ExchangeBudget:
        """Return the budget of a model, for training loops without a runner."""
        return ExchangeBudget(model, schedule=self.schedule, **self.kwargs)

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.budget = self.make_budget(model)
        if any(getattr(getattr(h, 'ema_model', None), 'update_buffers', 0) for h in runner.hooks):
            raise ValueError(
                'with update_buffers=True, EMAHook averages no choice of channels and would keep '
                'the first one: set update_buffers=False'
            )
        self.budget.start(runner.iter, runner.max_iters)

    def after_train_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        self.budget.step(runner.iter + 1, runner.max_iters)
