"""Randomness that depends on seed, epoch and iteration only, for exact resuming."""

import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import FUNCTIONS, HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seed Python, NumPy and torch before every training epoch, and torch before every step.

    mmengine restores weights, optimizer and schedule, but no random state, so dropout and
    augmentation of a resumed training would differ. Use ``worker_init_fn=dict(type='seed_worker')``
    and ``persistent_workers=False`` in the dataloader; mmengine's own worker seeds are the same in
    every epoch.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed the generators of the data loader."""
        _seed(_draw(runner.seed, runner.epoch, get_rank()))

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Seed the generator of the network, because validation and resuming draw numbers, too."""
        torch.manual_seed(_draw(runner.seed, runner.iter, get_rank(), 1))


@FUNCTIONS.register_module()
def seed_worker(worker_id: int) -> None:
    """Seed a dataloader worker by torch's seed for it, which is new in every epoch."""
    _seed(torch.initial_seed() % 2**32)


def _draw(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
