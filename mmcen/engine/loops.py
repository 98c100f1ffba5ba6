"""Trainings by epochs and by iterations that can be resumed exactly."""

from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop


@LOOPS.register_module()
class ExactEpochLoop(EpochBasedTrainLoop):
    """Loop by epochs that resumes a checkpoint from the middle of an epoch exactly.

    mmengine would start such an epoch again and keep counting, so an interrupted training would
    run too long.

    Attributes:
        batches_done: Number of batches of the first epoch that are loaded but not trained on.
    """

    batches_done = 0

    def run_epoch(self) -> None:
        """Run one epoch, or the rest of one."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        done, self.batches_done = self.batches_done, 0
        for idx, data_batch in enumerate(self.dataloader):
            if idx >= done:  # the others are loaded, because augmentation draws from one generator
                self.run_iter(idx, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module()
class ExactIterLoop(IterBasedTrainLoop):
    """Loop by iterations that loads the data that a resumed training skips.

    Augmentation draws from one generator. The OneDL mmengine skips such data without loading
    them, and what follows would be augmented differently.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dataloader_iterator.skip_iter = self._load  # other mmengines load by themselves

    def _load(self, count: int) -> None:
        for _ in range(count):
            next(self.dataloader_iterator)
