"""Training by epochs that can be resumed within an epoch."""

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop


@LOOPS.register_module()
class ExactEpochLoop(EpochBasedTrainLoop):
    """mmengine's loop by epochs, which takes up a checkpoint of the middle of an epoch exactly.

    mmengine starts such an epoch anew and goes on counting, so that a training that is killed now
    and then runs longer than it should.

    Attributes:
        batches_done: Batches of the first epoch to load and not to train on.
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
