"""Lower the temperature of a policy, and log its choices."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .learned_per_task import SharingPolicy, find_policy


@HOOKS.register_module()
class PolicyHook(Hook):
    """Lower the temperature of a :class:`SharingPolicy` and log its choices.

    The temperature is ``temperature * decay ** epoch``, also in a resumed training. The log has the
    share of all choices, layers times tasks, of each copy (``policy/copy0``...), the share of
    layers that all tasks share (``policy/shared``), and the temperature. After every epoch it lists
    the copies of each layer.

    Args:
        temperature: Temperature of the first epoch; 5 as in AdaShare.
        decay: Factor from epoch to epoch, 0 < decay <= 1; 0.965 as in AdaShare.
        interval: Iterations between measurements.

    Raises:
        ValueError: If the temperature is not positive, or the decay is out of range. Later, if the
            model has no policy.
    """

    def __init__(self, temperature: float = 5.0, decay: float = 0.965, interval: int = 50) -> None:
        if temperature <= 0 or not 0 < decay <= 1:
            raise ValueError(
                f'temperature {temperature} must be positive and decay {decay} in 0..1: both keep '
                'the choices a distribution'
            )
        self.temperature = temperature
        self.decay = decay
        self.interval = interval

    def before_train_epoch(self, runner: Runner) -> None:
        _policy(runner).temperature = self.temperature * self.decay**runner.epoch

    def after_train_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        if not self.every_n_train_iters(runner, self.interval):
            return
        policy = _policy(runner)
        groups = policy.groups()
        choices = [copy for row in groups for copy in row]
        scalars = {
            f'copy{i}': choices.count(i) / len(choices) for i in range(policy.logits.shape[-1])
        }
        scalars['shared'] = sum(len(set(row)) == 1 for row in groups) / len(groups)
        scalars['temperature'] = policy.temperature
        for name, value in scalars.items():
            runner.message_hub.update_scalar(f'train/policy/{name}', value)

    def after_train_epoch(self, runner: Runner) -> None:
        rows = ', '.join(str(list(row)) for row in _policy(runner).groups())
        print_log(f'copies that the tasks choose, layer by layer: {rows}', logger='current')


def _policy(runner: Runner) -> SharingPolicy:
    policy = find_policy(runner.model)
    if policy is None:
        raise ValueError(
            'PolicyHook: the model has no policy: use AdaShareTranslator with an AdaShareUNet, or '
            'leave the hook out of custom_hooks'
        )
    return policy
