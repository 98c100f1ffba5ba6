"""Training by epochs that can be resumed within an epoch."""

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop


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
