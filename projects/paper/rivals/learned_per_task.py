"""LearnedPerTask: learn which copy of a layer each task uses, layer by layer.

After AdaShare (Sun et al., NeurIPS 2020), a rival in Table 8 of the paper. AdaShare decides for
each task which residual blocks it runs and which it skips. A U-Net's layers change the resolution
and cannot be skipped, so here a task chooses among copies of each layer; two tasks share a layer
if they choose the same copy.
"""

from collections.abc import Callable
from itertools import combinations

import torch
from mmengine.dist import broadcast
from torch import Tensor, nn
from torch.func import functional_call

from mmcen.core import StreamGrid
from mmcen.layers import PerTask


class SharingPolicy(nn.Module):
    """The choices of all tasks in all layers: logits ``(L, T, copies)``, drawn once a step.

    A call draws :attr:`choices`, one-hot ``(L, T, copies)``, which the layers read: in training by
    Gumbel-softmax with straight-through gradients, in evaluation the most likely ones. (AdaShare's
    released configurations mix blocks by soft values in this stage; hard ones train the network
    that is tested.) The policy is a separate module to which the layers refer without owning it, so
    that it can have its own optimizer and distributed wrapper.

    Args:
        layers: L, from the first layer of the encoder to the innermost.
        tasks: T.
        copies: Number of copies of every layer, 2 up to T.
        sharing: Weight of :meth:`loss`; 0.05 in AdaShare's configurations of NYUv2, 0.005 of
            Taskonomy, beside task losses of about 1: weigh it against yours.

    Raises:
        ValueError: ``copies`` out of range.
    """

    def __init__(self, layers: int, tasks: int, copies: int = 2, sharing: float = 0.05) -> None:
        super().__init__()
        if not 2 <= copies <= tasks:
            raise ValueError(
                f'copies must be 2 to {tasks}, the number of tasks, got {copies}: for one copy, or '
                "one for each task, use CENUNetGenerator with groups='shared' or 'task'"
            )
        self.logits = nn.Parameter(torch.zeros(layers, tasks, copies))
        self.temperature = 5.0  # PolicyHook lowers it
        self.sharing = sharing
        self.choices = self._hard(self.logits.detach())

    def forward(self) -> Tensor:
        """Draw, the same in all processes; returns the new :attr:`choices`."""
        if not self.training:
            self.choices = self._hard(self.logits.detach())
            return self.choices
        noise = -torch.empty_like(self.logits).exponential_().log()  # Gumbel(0, 1)
        broadcast(noise)  # random numbers differ between processes
        soft = ((self.logits + noise) / self.temperature).softmax(-1)
        # the difference is exactly zero: values of the hard choice, gradients of the soft one
        self.choices = self._hard(soft.detach()) + (soft - soft.detach())
        return self.choices

    def loss(self) -> Tensor:
        """AdaShare's sharing loss, which draws tasks together, in the lower layers above all.

        Sum over layers l = 0..L-1 and pairs of tasks of (L - l) / L times the distance of their
        probabilities, half their L1 distance: ``|alpha_i - alpha_j|`` where there are two copies.
        As the paper's text; the released code takes logits, and weights that rise with l.
        """
        probabilities = self.logits.softmax(-1)  # (L, T, copies)
        layers, tasks, _ = probabilities.shape
        weights = torch.arange(layers, 0, -1).to(probabilities) / layers  # (L,)
        distances = [
            (probabilities[:, i] - probabilities[:, j]).abs().sum(-1) / 2
            for i, j in combinations(range(tasks), 2)
        ]
        return self.sharing * (weights * sum(distances)).sum()

    def groups(self) -> list[tuple[int, ...]]:
        """The likeliest copy of each task, by layer."""
        return [tuple(row) for row in self.logits.argmax(-1).tolist()]

    @staticmethod
    def _hard(x: Tensor) -> Tensor:
        return nn.functional.one_hot(x.argmax(-1), x.shape[-1]).to(x)

    def __getstate__(self) -> dict:
        """Copies and pickles do without the graph of the last draw."""
        return self.__dict__ | {'choices': self.choices.detach()}

    def extra_repr(self) -> str:
        layers, tasks, copies = self.logits.shape
        return f'layers={layers}, tasks={tasks}, copies={copies}, sharing={self.sharing}'


def find_policy(model: nn.Module) -> SharingPolicy | None:
    """The policy of a model that has one, also inside of a distributed wrapper."""
    return next((m for m in model.modules() if isinstance(m, SharingPolicy)), None)


class LearnedPerTask(PerTask):
    """A :class:`PerTask` whose groups are learned.

    In training every task runs the sum of the copies' weights by its choice, which is linear in
    them, so that the choice has gradients while one convolution a task is run, not one a copy. In
    evaluation it is the PerTask of the likeliest groups.

    Args:
        make: Builds one copy of a layer that is linear in its parameters, such as a convolution.
        grid: Sizes T and M.
        policy: The choices; the layer does not own it.
        layer: The layer's place in ``policy``.

    Raises:
        ValueError: As PerTask, and a policy for another number of tasks.
    """

    mixes_streams = True

    def __init__(
        self, make: Callable[[], nn.Module], grid: StreamGrid, policy: SharingPolicy, layer: int
    ) -> None:
        _, tasks, copies = policy.logits.shape
        if tasks != grid.tasks:
            raise ValueError(f'the policy is for {tasks} tasks, the grid has {grid.tasks}')
        super().__init__(make, grid, [*range(copies), *[0] * (tasks - copies)])
        self._policy = (policy,)  # in a tuple, which torch does not look into: not a child
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.grid.fold(torch.stack(self.by_task(x), 1))

    def by_task(self, x: Tensor) -> list[Tensor]:
        """Outputs of the tasks, T of ``(B, M, C', H', W')``."""
        (policy,) = self._policy
        if not self.training:
            self.groups = policy.groups()[self.layer]
            return super().by_task(x)
        choices = policy.choices[self.layer]  # (T, copies)
        streams = self.grid.unfold(x)  # (B, T, M, C, H, W)
        return [self._mixed(choices[t], streams[:, t]) for t in range(self.grid.tasks)]

    def _mixed(self, choice: Tensor, part: Tensor) -> Tensor:
        """One task's streams ``(B, M, C, H, W)`` through the copy that it chose."""
        parameters = [dict(copy.named_parameters()) for copy in self.copies]
        mixed = {
            name: sum(own[name] * share for own, share in zip(parameters, choice, strict=True))
            for name in parameters[0]
        }
        y = functional_call(self.copies[0], mixed, (part.flatten(0, 1),))
        return y.unflatten(0, part.shape[:2])

    def extra_repr(self) -> str:
        return f'layer={self.layer}, copies={len(self.copies)}'
