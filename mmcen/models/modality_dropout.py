"""Modality dropout: each training step uses a random subset of the modalities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.dist import broadcast
from torch import Tensor, nn

from ..core import ExchangeNorm

NAME = 'modality_dropout'  # of the part of a model


class ModalityDropout(nn.Module):
    """Draw which modalities are present in a training step.

    Each modality is absent with probability ``p``, independently of the others, except that the
    ``keep_at_least`` modalities with the highest random numbers are always present. With two
    modalities and ``keep_at_least=1``, both are present in ``(1 - p)**2`` of the steps, and each is
    alone in half of the others.

    A draw depends on a seed and on the number of earlier draws. Both are in a buffer, which is part
    of checkpoints, so that a resumed training continues the sequence of draws. The first draw of a
    distributed training copies the buffer of the first process to the others, after which all
    processes draw the same subsets.

    Args:
        count: Number of modalities M.
        p: Probability that a modality is absent, from 0 to below 1.
        keep_at_least: Number of modalities that are present in every step, 1 to M.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, count: int, p: float, keep_at_least: int = 1) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f'p of {NAME} must be from 0 to below 1, got {p}')
        if not 1 <= keep_at_least <= count:
            raise ValueError(
                f'keep_at_least of {NAME} must be 1 to {count}, the number of modalities, got '
                f'{keep_at_least}'
            )
        self.count, self.p, self.keep_at_least = count, p, keep_at_least
        # seed, and number of draws; the runner has seeded torch when it builds the model
        self.register_buffer('state', torch.tensor([torch.initial_seed() % 2**31, 0]))
        self.state: Tensor
        self._in_step = False  # with the other processes

    def draw(self) -> list[int]:
        """Return the places of the modalities that are present, ascending."""
        if not self._in_step:  # mmengine does not copy buffers, and may seed processes differently
            broadcast(self.state)
            self._in_step = True
        numbers = np.random.default_rng(self.state.tolist()).random(self.count)
        self.state[1] += 1
        highest = set(np.argsort(numbers)[self.count - self.keep_at_least :].tolist())
        return [i for i in range(self.count) if numbers[i] >= self.p or i in highest]

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f'{self.count}, p={self.p}, keep_at_least={self.keep_at_least}'


def add_modality_dropout(model: nn.Module, count: int, cfg: Mapping[str, Any] | None) -> None:
    """Give a model the part ``modality_dropout``: a :class:`ModalityDropout`, or None.

    Checkpoints with and without modality dropout load into each other's models.

    Args:
        model: The model.
        count: Number of modalities M.
        cfg: ``p`` and perhaps ``keep_at_least``; None for no dropout. With ``own_norms=True`` norms
            have parameters and statistics of their own for when a modality is absent.
    """
    options = dict(cfg or {})
    if options.pop('own_norms', False):
        for module in model.modules():
            if isinstance(module, ExchangeNorm):
                module.split_for_subsets()
    part = None if cfg is None else ModalityDropout(count, **options)
    setattr(model, NAME, part)  # None is no child: distributed wrappers ask each for parameters

    def adapt(state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        key = f'{prefix}{NAME}.state'
        if part is None:
            state_dict.pop(key, None)
        else:
            state_dict.setdefault(key, part.state)

    model._register_load_state_dict_pre_hook(adapt)
