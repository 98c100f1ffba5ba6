"""Exchange a given share of the channels, chosen while training."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ...core.budget import ExchangeBudget


@HOOKS.register_module()
class ExchangeBudgetHook(Hook):
    """Run an :class:`~mmcen.core.ExchangeBudget` in a training.

    :class:`ExchangeMonitorHook` reports the wanted share, the exchanged share and the churn.

    Args:
        kwargs: Arguments of ExchangeBudget.
    """

    def __init__(self, **kwargs: Any) -> None:
        self.kwargs = kwargs

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.budget = ExchangeBudget(model, **self.kwargs)
        self.budget.start(runner.iter, runner.max_iters)

    def after_train_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        self.budget.step(runner.iter + 1, runner.max_iters)
