"""Reject checkpoints with other classes."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner

from ...models.checkpoint_names import reject_other_classes


@HOOKS.register_module()
class CheckClassesHook(Hook):
    """Compare the class names of a checkpoint with those of the data sets that it is loaded for.

    mmengine warns about other classes when it resumes a training, but not in a test. The command
    line registers this hook in every run.

    Raises:
        CheckpointError: If the names or their order differ.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare with every data set whose loop has been built."""
        for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
            if isinstance(loop, BaseLoop):
                metainfo = getattr(loop.dataloader.dataset, 'metainfo', None) or {}
                reject_other_classes(checkpoint, metainfo.get('classes'))
