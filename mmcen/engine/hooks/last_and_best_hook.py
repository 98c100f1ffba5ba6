"""Report the last and the best validation separately."""

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner

BETTER = {'greater': float.__gt__, 'less': float.__lt__}


@HOOKS.register_module()
class LastAndBestHook(Hook):
    """Keep the metrics of the last and of the best validation, and log both when training ends.

    The best epoch, chosen on the test set, is too optimistic. The log therefore has both.

    Args:
        key: Metric to compare; None for the first metric of the evaluator.
        rule: Which values are better, ``'greater'`` or ``'less'``.

    Raises:
        ValueError: If the rule is unknown.
    """

    def __init__(self, key: str | None = 'mIoU', rule: str = 'greater') -> None:
        if rule not in BETTER:
            raise ValueError(f"rule must be one of {tuple(BETTER)}, got '{rule}'")
        self.key = key
        self.better = BETTER[rule]

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        key = next(iter(metrics or {}), None) if self.key is None else self.key
        if not metrics or key not in metrics:
            return
        hub = runner.message_hub  # saved with checkpoints, so that a resumed training remembers
        now = {
            'epoch': runner.epoch,
            'iter': runner.iter,
            **{k: float(v) for k, v in metrics.items()},
        }
        hub.update_info('last_val', now)
        best = hub.get_info('best_val') if 'best_val' in hub.runtime_info else None
        if best is None or self.better(now[key], best[key]):
            hub.update_info('best_val', now)

    def after_train(self, runner: Runner) -> None:
        for word in ('last', 'best'):
            if f'{word}_val' in runner.message_hub.runtime_info:
                values = dict(runner.message_hub.get_info(f'{word}_val'))
                epoch = values.pop('epoch')
                values.pop('iter')
                text = ', '.join(f'{k} {v:.{2 if v >= 1 else 3}f}' for k, v in values.items())
                print_log(f'{word} validation (epoch {epoch}): {text}', logger='current')
