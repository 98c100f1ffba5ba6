"""Cross-task consistency (X-TC, Zamir et al., CVPR 2020), the rival of Table 7."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class CrossTaskConsistency(BaseModule):
    """Networks ``F_ab`` from the image of task a to that of b, for each ordered pair of tasks.

    They are trained on the targets by ``|F_ab(y_a) - y_b|``. Frozen, they give the triangle loss of
    the predictions, ``|F_ab(p_a) - y_b|``. X-TC also has the form ``|F_ab(p_a) - F_ab(y_a)|``
    (perceptual), with networks trained beforehand. Here they are trained at the same time, so the
    target itself is used from the first step.

    Args:
        tasks: Names of the image tasks, at least two.
        network: Settings of the U-Nets, a CENUNetGenerator without exchange whose rows are the
            pairs: ``downs``, ``base_channels`` and so on.
        weight: Weight of the triangle loss.

    Raises:
        ValueError: If there are fewer than two tasks.
    """

    def __init__(
        self, tasks: Sequence[str], network: Mapping[str, Any] | None = None, weight: float = 100.0
    ) -> None:
        super().__init__()
        if len(tasks) < 2:
            raise ValueError(
                f'consistency is between two image tasks or more, got {list(tasks)}: leave it out'
            )
        self.tasks = tuple(tasks)
        self.pairs = list(permutations(self.tasks, 2))
        alone = dict(groups='task', exchange=False)
        rows = [[self.tasks.index(a)] for a, _ in self.pairs]
        cfg = dict(type='CENUNetGenerator', inputs=rows, encoder=alone, decoder=alone)
        self.network = MODELS.build(cfg | dict(network or {}))
        self.weight = weight
        self.criterion = nn.L1Loss()

    def forward(self, images: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the mean absolute error of every pair: images of a, mapped to b, and b's target.

        Args:
            images: Images by task, ``(N, 3, H, W)`` in -1..1.
            targets: Targets by task, of the same form.
        """
        outputs = self.network(torch.stack([images[task] for task in self.tasks], 1))
        return [
            self.criterion(y[:, 0].float().tanh(), targets[b])
            for y, (_, b) in zip(outputs, self.pairs, strict=True)
        ]

    def named(self, losses: Sequence[Tensor], kind: str) -> dict[str, Tensor]:
        """Return losses of the pairs with names for the log, ``a->b.loss_<kind>``."""
        return {f'{a}->{b}.loss_{kind}': v for (a, b), v in zip(self.pairs, losses, strict=True)}
