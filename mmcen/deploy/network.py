"""A trained model as a network of plain layers: named modalities in, named outputs out."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..models.data_preprocessor import CENDataPreprocessor
from ..models.generators import CENUNetGenerator
from ..models.multitask import CENMultiTask
from ..models.multitask.dense_network import CENDenseNetwork
from ..models.segmentors.cen_encoder_decoder import ENSEMBLE, CENEncoderDecoder
from .parts import Activate, Normalise, ResizeLike, WeightedSum
from .unroll import Unroller


class DeployedNetwork(nn.Module):
    """What :func:`deploy` makes.

    Attributes:
        inputs: names of the modalities, with their numbers of channels.
        outputs: names: ``ensemble`` and the streams' of a segmentor, ``<task>/ensemble`` and
            ``<task>/<stream>`` of several tasks.
        divisor: height and width must be multiples of it.

    Input: a tensor ``(B, C_m, H, W)`` of each modality, in the units of the sample (colour 0..255,
    depth in metres, as the pipeline packs them). Output: a tuple, logits ``(B, K, H, W)`` or images
    ``(B, C', H, W)`` in 0..255.
    """

    def __init__(
        self, layers: fx.GraphModule, inputs: dict[str, int], outputs: Sequence[str], divisor: int
    ) -> None:
        super().__init__()
        self.layers = layers
        self.inputs, self.outputs, self.divisor = inputs, tuple(outputs), divisor

    def forward(self, *modalities: Tensor) -> tuple[Tensor, ...]:
        return self.layers(*modalities)


def deploy(model: nn.Module, outputs: Sequence[str] | None = None) -> DeployedNetwork:
    """Take a trained model apart into plain layers of each stream.

    The norms' statistics are folded into the convolutions, the exchange becomes a fixed choice of
    channels, and what nobody reads is not computed: channels that are replaced in their own stream,
    and streams that no output needs.

    Args:
        model: a CENEncoderDecoder, CENMultiTask or CENTranslator; it stays as it is.
        outputs: which outputs, by the names of :class:`DeployedNetwork`; default all.

    Returns:
        A network in evaluation mode, on the CPU.

    Raises:
        ValueError: an unknown output, a part that cannot be taken apart (fusion layers, learned
            sharing, norms that are shared in part, a network whose forward depends on its input).
        TypeError: another kind of model.

    Example:
        >>> network = deploy(model, outputs=['ensemble'])  # doctest: +SKIP
        >>> logits, = network(rgb, depth)  # doctest: +SKIP
    """
    if isinstance(model, CENEncoderDecoder):
        plan: _Plan = _Segmentor(model)
    elif isinstance(model, CENMultiTask):
        plan = _MultiTask(model)
    else:
        raise TypeError(
            f'{type(model).__name__} cannot be deployed: give a CENEncoderDecoder, a CENMultiTask '
            'or a CENTranslator'
        )
    wanted = list(plan.names if outputs is None else outputs)
    unknown = [name for name in wanted if name not in plan.names]
    if unknown or not wanted:
        raise ValueError(f'outputs {unknown or wanted} are unknown: choose of {plan.names}')
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return plan.build(wanted).eval()
    finally:
        model.train(training)


class _Plan:
    """How a kind of model goes from modalities to outputs."""

    names: list[str]

    def __init__(self, model: Any) -> None:
        self.model = model

    def build(self, wanted: list[str]) -> DeployedNetwork:
        raise NotImplementedError

    def placeholders(self, unroller: Unroller, names: Sequence[str]) -> dict[str, fx.Node]:
        return {name: unroller.graph.placeholder(name) for name in names}

    def normalised(self, unroller: Unroller, given: dict[str, fx.Node]) -> dict[str, fx.Node]:
        """Every modality by its own mean and deviation, of equal channel counts."""
        return {
            name: unroller.add(Normalise(*self._normalisation(name)), node)
            for name, node in given.items()
        }

    def _normalisation(self, name: str) -> tuple[Tensor, Tensor, int]:
        preprocessor = self.model.data_preprocessor
        if isinstance(preprocessor, CENDataPreprocessor):
            return preprocessor.normalisation(name)
        mean, std = (preprocessor.get_buffer(name).view(-1, 1, 1) for name in ('mean', 'std'))
        return mean, std, 1  # mmagic's: one for all images

    def network(
        self, unroller: Unroller, given: dict[str, fx.Node], made: dict[str, fx.Node], divisor: int
    ) -> DeployedNetwork:
        channels = getattr(self.model.data_preprocessor, 'channels', {})
        return DeployedNetwork(
            unroller.finish(list(made.values())),
            {name: channels.get(name, 3) for name in given},
            list(made),
            divisor,
        )


class _Segmentor(_Plan):
    def __init__(self, model: CENEncoderDecoder) -> None:
        super().__init__(model)
        self.names = [ENSEMBLE, *model.streams]

    def build(self, wanted: list[str]) -> DeployedNetwork:
        model = self.model
        unroller = Unroller(model.in_grid)
        given = self.placeholders(unroller, model.data_preprocessor.modalities)
        normalised = self.normalised(unroller, given)
        logits = unroller.unroll(_EncodeDecode(model), list(normalised.values()))
        by_name = dict(zip(model.streams, logits, strict=True))
        by_name[ENSEMBLE] = unroller.add(WeightedSum(model.ensemble.scores()[0].tolist()), *logits)
        like = next(iter(given.values()))
        resize = ResizeLike(model.align_corners)
        made = {name: unroller.add(resize, by_name[name], like) for name in wanted}
        return self.network(unroller, given, made, 1)


class _EncodeDecode(nn.Module):
    def __init__(self, model: CENEncoderDecoder) -> None:
        super().__init__()
        self.backbone, self.decode_head = model.backbone, model.decode_head
        self.neck = model.neck if model.with_neck else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.decode_head(self.neck(self.backbone(x)))


class _MultiTask(_Plan):
    def __init__(self, model: CENMultiTask) -> None:
        super().__init__(model)
        self.names = [
            f'{task}/{name}'
            for task in model.plan.tasks
            for name in (ENSEMBLE, *model.names_of(task))
        ]

    def build(self, wanted: list[str]) -> DeployedNetwork:
        model, plan = self.model, self.model.plan
        unroller = Unroller(plan.grid)
        given = self.placeholders(unroller, plan.domains)
        normalised = list(self.normalised(unroller, given).values())
        streams = [normalised[i] for row in plan.inputs for i in row]
        results = self._results(unroller, streams)  # T*M
        like = next(iter(given.values()))
        if isinstance(model.network, CENDenseNetwork):
            resize = ResizeLike(model.network.align_corners)
            results = [unroller.add(resize, node, like) for node in results]
        made, count = {}, plan.grid.modalities
        for t, task in enumerate(plan.tasks):
            activate = Activate(model.heads[task])
            own = [unroller.add(activate, node) for node in results[t * count : (t + 1) * count]]
            made |= {f'{task}/{n}': y for n, y in zip(model.names_of(task), own, strict=True)}
            scores = model.ensemble.scores()[t].tolist()
            made[f'{task}/{ENSEMBLE}'] = unroller.add(WeightedSum(scores), *own)
        divisor = 2 ** getattr(model.network, 'downs', 0)
        return self.network(unroller, given, {name: made[name] for name in wanted}, divisor)

    def _results(self, unroller: Unroller, streams: list[fx.Node]) -> list[fx.Node]:
        network = self.model.network
        if isinstance(network, CENUNetGenerator):
            return unroller.unroll(_UNet(network), streams)
        results = unroller.unroll(_Dense(network), streams)
        if network.lock_step:
            return results
        count = network.grid.modalities  # every head ran on every stream: take the task's own
        return [heads[s // count] for s, heads in enumerate(results)]


class _UNet(nn.Module):
    def __init__(self, network: CENUNetGenerator) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network.output(self.network._decode(self.network._encode(x)))


class _Dense(nn.Module):
    def __init__(self, network: CENDenseNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        network = self.network
        features = network.neck(network.backbone(x))
        if network.lock_step:
            return network.classifiers(network.decode_head(features))
        return [head(features) for head in network.decode_heads]
