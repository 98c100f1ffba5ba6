"""From chance to decision: the temperature of a policy, and what it has chosen."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .learned_per_task import SharingPolicy, find_policy


@HOOKS.register_module()
class PolicyHook(Hook):
    """Lower the temperature of a :class:`SharingPolicy` and log its choices.

    The temperature is ``temperature * decay ** epoch``, which a resumed training finds again.
    With the log goes the share of all choices, layers times tasks, that are on each copy
    (``policy/copy0``...), of layers that all tasks share (``policy/shared``), and the temperature;
    after every epoch the log lists the copies of each layer.

    Args:
        temperature: Temperature of the first epoch; 5 as AdaShare.
        decay: Factor from epoch to epoch, 0 < decay <= 1; 0.965 is AdaShare's.
        interval: Iterations between measurements.

    Raises:
        ValueError: A temperature that is not positive, a decay out of range. Later: the model has
            no policy.
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
