"""Image translation the way the official code does it: lists of streams, two generator passes.

``projects/paper/benchmark.py`` measures a CENTranslator against it. It is made from one and has
its weights, and a step of it must end with the same weights (tests/test_benchmark.py).
"""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn

from mmcen.layers import ExchangeNorm
from mmcen.models.generators import CENUNetGenerator
from mmcen.models.translators import CENTranslator

from .list_of_streams import StreamNorms, each

REAL, FAKE = 1.0, 0.0


class ListTranslator(nn.Module):
    """The same networks as a CENTranslator of one task, and the same weights (copied).

    A step as in the official code: the discriminator's loss on real pictures and on those of a
    first generator pass, its update, a second generator pass, the generator's losses, its update.
    The generator's norms exchange by selecting channels; the discriminator is called once for each
    picture.

    Args:
        model: What to mirror.
        detached: Do not send the discriminator's loss back through the generator, where the
            official code computes unused gradients.

    Raises:
        ValueError: If the model has a part that this class has no list version of.
    """

    def __init__(self, model: CENTranslator, detached: bool) -> None:
        super().__init__()
        check_mirrors(model)
        self.detached = detached
        norms = {id(m): StreamNorms(m) for m in model.modules() if isinstance(m, ExchangeNorm)}
        # deepcopy takes what the memo has for a module, here lists of norms for exchange norms
        self.network = deepcopy(model.network, norms)
        self.discriminators = deepcopy(model.discriminators)
        self.ensemble = deepcopy(model.ensemble)
        (self.task, self.inputs), *_ = model.tasks.items()
        self.judge = self.discriminators.by_task[self.task]
        self.pixel_weight = model.heads[self.task].criterion.loss_weight
        self.train(model.training)

    def generate(self, xs: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Images of all streams, (B, 3, H, W) each, and of the ensemble."""
        net = self.network
        skips = []
        for i, (conv, norm) in enumerate(zip(net.down_convs, net.down_norms, strict=True)):
            if i:
                xs = [F.leaky_relu(x, 0.2, inplace=True) for x in xs]
                skips.append(xs)
            xs = each(norm, each(conv.copies[0], xs))
        for conv, norm, dropout in zip(net.up_convs, net.up_norms, net.dropouts, strict=True):
            xs = each(dropout, each(norm, each(conv.copies[0], [x.relu_() for x in xs])))
            xs = [torch.cat(pair, 1) for pair in zip(xs, skips.pop(), strict=True)]
        xs = [x.tanh() for x in each(net.output.copies[0], [x.relu_() for x in xs])]
        scores = self.ensemble.alpha[0].softmax(0)
        return xs, sum(score * x.detach() for score, x in zip(scores, xs, strict=True))

    def step(
        self, domains: dict[str, Tensor], optimizers: OptimWrapperDict, coefficient: float
    ) -> Tensor:
        """A training step; the generator's loss."""
        xs, target = [domains[name] for name in self.inputs], domains[self.task]
        real = self._judge(xs, [target] * len(xs), REAL)
        with torch.set_grad_enabled(not self.detached):
            images, _ = self.generate(xs)
        loss = 0.5 * (real + self._judge(xs, images, FAKE))
        optimizers['discriminators'].update_params(loss)
        if not self.detached:
            optimizers['network'].zero_grad()
        images, ensemble = self.generate(xs)
        self.judge.requires_grad_(not self.detached)
        loss = self._judge(xs, images, REAL)
        self.judge.requires_grad_(True)
        for image in (*images, ensemble):
            loss = loss + self.pixel_weight * F.l1_loss(image, target)
        norms = [m for m in self.network.modules() if isinstance(m, StreamNorms) and m.exchanges]
        loss = loss + coefficient * sum(m.penalty() for m in norms)
        loss.backward()
        for name in ('network', 'ensemble'):
            optimizers[name].step()
            optimizers[name].zero_grad()
        if not self.detached:
            optimizers['discriminators'].zero_grad()
        return loss.detach()

    def _judge(self, xs: list[Tensor], images: list[Tensor], label: float) -> Tensor:
        """Sum over the streams of the mean cross entropy of the discriminator's logits."""
        loss = torch.zeros(())
        for pair in zip(xs, images, strict=True):
            logits = self.judge(torch.cat(pair, 1))
            target = torch.full_like(logits, label)
            loss = loss + F.binary_cross_entropy_with_logits(logits, target)
        return loss


def check_mirrors(model: nn.Module) -> None:
    """Complain about a model that :class:`ListTranslator` cannot mirror.

    Raises:
        ValueError: If the model has another generator or several tasks.
    """
    if type(model) is not CENTranslator or type(model.network) is not CENUNetGenerator:
        kinds = f'{type(model).__name__} of {type(getattr(model, "network", None)).__name__}'
        raise ValueError(
            f'list_of_streams mirrors CENTranslator of CENUNetGenerator, the model is {kinds}: '
            'leave it out of --compare'
        )
    if len(model.tasks) > 1:
        raise ValueError(
            f'list_of_streams is the official code, which has one task, the model has '
            f'{list(model.tasks)}: leave it out of --compare'
        )
