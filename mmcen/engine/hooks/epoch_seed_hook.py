"""Randomness that depends on seed and epoch alone, so that a resumed training equals one never
stopped."""

import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import FUNCTIONS, HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seed Python, NumPy and torch anew before every training epoch.

    mmengine restores weights, optimizer and schedule, but no random state: dropout and augmentation
        of a resumed
    training would differ. Use ``worker_init_fn=dict(type='seed_worker')`` and
    ``persistent_workers=False`` in the dataloader; mmengine's own worker seeds are the same in
    every epoch.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        seed = int(
            np.random.SeedSequence([runner.seed, runner.epoch, get_rank()]).generate_state(1)[0]
        )
        _seed(seed)


@FUNCTIONS.register_module()
def seed_worker(worker_id: int) -> None:
    """Seed a dataloader worker from torch's own seed for it, which is new in every epoch."""
    _seed(torch.initial_seed() % 2**32)


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
