"""Convert a trained model to a network of plain layers with named inputs and outputs."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..core.grid import StreamGrid
from ..models.data_preprocessor import CENDataPreprocessor
from ..models.generators import CENUNetGenerator
from ..models.multitask import CENMultiTask
from ..models.multitask.dense_network import CENDenseNetwork
from ..models.multitask.heads import to_image
from ..models.segmentors import CENEncoderDecoder, CENSaliency
from ..outputs import ENSEMBLE, flat_name, flatten
from .parts import Activate, Normalise, Probability, ResizeLike, WeightedSum
from .unroll import Unroller


class DeployedNetwork(nn.Module):
    """Result of :func:`deploy` and :func:`as_it_is`.

    Attributes:
        inputs: names of the modalities, with their numbers of channels.
        outputs: names: ``ensemble`` and the streams' of a segmentor, ``<task>/ensemble`` and
            ``<task>/<stream>`` of several tasks.
        images: those of the outputs that are images (saliency: grey ones), not logits of classes.
        labels: those of the outputs that are label maps, see :class:`Labelled`.
        divisor: height and width must be multiples of it.

    Input: a tensor ``(B, C_m, H, W)`` of each modality, in the units of the sample (colour 0..255,
    depth in metres, as the pipeline packs them). Output: a tuple, logits ``(B, K, H, W)`` or images
    ``(B, C', H, W)`` in 0..255.
    """

    def __init__(
        self,
        layers: nn.Module,
        inputs: dict[str, int],
        outputs: Sequence[str],
        images: Sequence[str] = (),
        divisor: int = 1,
    ) -> None:
        super().__init__()
        self.layers = layers
        self.inputs, self.outputs = dict(inputs), tuple(outputs)
        self.images, self.divisor = tuple(images), divisor
        self.labels: tuple[str, ...] = ()

    def forward(self, *modalities: Tensor) -> tuple[Tensor, ...]:
        return self.layers(*modalities)

    def check_size(self, size: Sequence[int]) -> None:
        """Raise ValueError unless frames of (height, width), and of half of it, fit."""
        if min(size) < 2 * self.divisor or any(length % self.divisor for length in size):
            raise ValueError(
                f'size {tuple(size)} must be multiples of {self.divisor}, and at least twice that: '
                'the network halves its input'
            )


class Labelled(DeployedNetwork):
    """A deployed network whose logits become label maps.

    Args:
        network: Result of :func:`deploy` or :func:`as_it_is`.
        threshold: Probability above which a single logit is class 1.

    Output: label maps ``(B, H, W)`` in place of logits ``(B, K, H, W)``: uint8, or int64 if K is
    above 256. Images remain.
    """

    def __init__(self, network: DeployedNetwork, threshold: float = 0.5) -> None:
        super().__init__(
            network.layers, network.inputs, network.outputs, network.images, network.divisor
        )
        self.labels = tuple(name for name in self.outputs if name not in self.images)
        self.threshold = threshold

    def forward(self, *modalities: Tensor) -> tuple[Tensor, ...]:
        made = zip(self.outputs, self.layers(*modalities), strict=True)
        return tuple(self._label(y) if name in self.labels else y for name, y in made)

    def _label(self, logits: Tensor) -> Tensor:
        if logits.shape[1] == 1:
            return (logits[:, 0].sigmoid() > self.threshold).to(torch.uint8)
        labels = logits.argmax(1)
        return labels.to(torch.uint8) if logits.shape[1] <= 256 else labels


def padded(network: Any, modalities: Sequence[Tensor]) -> dict[str, Tensor]:
    """Run a deployed network on frames of any size.

    Args:
        network: A :class:`DeployedNetwork` or :class:`OnnxNetwork`. Frames are padded to its
            divisor.
        modalities: ``(B, C_m, H, W)`` of each input.

    Returns:
        Outputs by name, ``(B, K, H, W)``, or ``(B, H, W)`` for label maps.
    """
    height, width = modalities[0].shape[2:]
    found = network(*pad_to(network.divisor, modalities))
    return {name: y[..., :height, :width] for name, y in zip(network.outputs, found, strict=True)}


def pad_to(divisor: int, modalities: Sequence[Tensor]) -> list[Tensor]:
    """Repeat the last row and column until height and width are multiples of the divisor."""
    below, right = (-size % divisor for size in modalities[0].shape[2:])
    if not (below or right):
        return list(modalities)
    return [nn.functional.pad(x, (0, right, 0, below), 'replicate') for x in modalities]


def deploy(
    model: nn.Module,
    outputs: Sequence[str] | None = None,
    present: Sequence[str] | None = None,
) -> DeployedNetwork:
    """Take a trained model apart into plain layers of each stream.

    The norms' statistics are folded into the convolutions, the exchange becomes a fixed choice of
    channels. Unused channels, which are replaced in their own stream, and streams that no output
    needs are pruned.

    Args:
        model: a CENEncoderDecoder, CENMultiTask or CENTranslator; it stays as it is.
        outputs: which outputs, by the names of :class:`DeployedNetwork`; default all that the
            modalities present give.
        present: names of the modalities that the network takes, in the order of the streams;
            default all. The streams of the others are left out.

    Returns:
        A network in evaluation mode, on the CPU.

    Raises:
        ValueError: an unknown output or modality, a part that cannot be taken apart (fusion layers,
            learned sharing, norms that are shared in part, a network whose forward depends on its
            input).
        TypeError: another kind of model.

    Examples:
        >>> network = deploy(model, outputs=['ensemble'])  # doctest: +SKIP
        >>> logits, = network(rgb, depth)  # doctest: +SKIP
    """
    plan, wanted = _plan_of(model, outputs, present)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return plan.around(plan.apart(wanted), wanted)
    finally:
        model.train(training)


def as_it_is(
    model: nn.Module,
    outputs: Sequence[str] | None = None,
    present: Sequence[str] | None = None,
) -> DeployedNetwork:
    """Wrap an unchanged model in the interface of a deployed one.

    It is for models that :func:`deploy` does not support. Arguments and errors are those of deploy.
    """
    plan, wanted = _plan_of(model, outputs, present)
    return plan.around(_Whole(plan, wanted), wanted)


def _plan_of(
    model: nn.Module, outputs: Sequence[str] | None, present: Sequence[str] | None
) -> tuple['_Plan', list[str]]:
    if isinstance(model, CENEncoderDecoder):
        plan: _Plan = _Segmentor(model, _chosen(model.data_preprocessor.modalities, present))
    elif isinstance(model, CENMultiTask):
        plan = _MultiTask(model, _chosen(model.plan.domains, present))
    else:
        raise TypeError(
            f'{type(model).__name__} cannot be deployed: give a CENEncoderDecoder, a CENMultiTask '
            'or a CENTranslator'
        )
    wanted = list(plan.names if outputs is None else outputs)
    unknown = [name for name in wanted if name not in plan.names]
    if unknown or not wanted:
        raise ValueError(f'outputs {unknown or wanted} are unknown: choose of {plan.names}')
    return plan, wanted


def _chosen(known: Sequence[str], present: Sequence[str] | None) -> list[str]:
    """Return the present modalities in the order of the streams."""
    if present is None:
        return list(known)
    unknown = [name for name in present if name not in known]
    if unknown or not present:
        raise ValueError(
            f'modalities {unknown or list(present)} are unknown: choose of {list(known)}'
        )
    return [name for name in known if name in present]


class _Plan(ABC):
    """Steps of a kind of model from modalities to outputs.

    Attributes:
        names: of all outputs.
        images: those that are images.
        inputs: modalities that are present, and their channels.
        grid: of the streams.
        divisor: of height and width.
    """

    names: list[str]
    images: Sequence[str] = ()
    grid: StreamGrid
    divisor = 1

    def __init__(self, model: Any, modalities: Sequence[str]) -> None:
        self.model = model
        channels = getattr(model.data_preprocessor, 'channels', {})
        self.inputs = {name: channels.get(name, 3) for name in modalities}

    def around(self, layers: nn.Module, wanted: Sequence[str]) -> DeployedNetwork:
        """The network that has these layers."""
        images = [name for name in wanted if name in self.images]
        return DeployedNetwork(layers, self.inputs, wanted, images, self.divisor).eval()

    def normalise(self, name: str) -> Normalise:
        """A modality by its own mean and deviation, of as many channels as all."""
        preprocessor = self.model.data_preprocessor
        if isinstance(preprocessor, CENDataPreprocessor):
            return Normalise(*preprocessor.normalisation(name))
        # mmagic's has one mean for all images
        return Normalise(*(preprocessor.get_buffer(key).view(-1, 1, 1) for key in ('mean', 'std')))

    def apart(self, wanted: Sequence[str]) -> fx.GraphModule:
        """Plain layers of each stream."""
        unroller = Unroller(self.grid)
        given = {name: unroller.graph.placeholder(name) for name in self.inputs}
        normalised = {name: unroller.add(self.normalise(name), x) for name, x in given.items()}
        made = self.outputs(unroller, normalised, next(iter(given.values())))
        return unroller.finish([made[name] for name in wanted])

    @abstractmethod
    def outputs(
        self, unroller: Unroller, x: dict[str, fx.Node], like: fx.Node
    ) -> dict[str, fx.Node]:
        """Normalised modalities to outputs by name, as large as ``like``, as a graph."""

    @abstractmethod
    def folded(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same by the model itself."""


class _Whole(nn.Module):
    """A plan's model, folded."""

    def __init__(self, plan: _Plan, wanted: Sequence[str]) -> None:
        super().__init__()
        self.model = plan.model
        self.normalise = nn.ModuleList(plan.normalise(name) for name in plan.inputs)
        self.plan, self.wanted = plan, wanted

    def forward(self, *modalities: Tensor) -> tuple[Tensor, ...]:
        normalised = [f(x) for f, x in zip(self.normalise, modalities, strict=True)]
        outputs = self.plan.folded(dict(zip(self.plan.inputs, normalised, strict=True)))
        return tuple(outputs[name] for name in self.wanted)


class _Segmentor(_Plan):
    def __init__(self, model: CENEncoderDecoder, present: Sequence[str]) -> None:
        super().__init__(model, present)
        self.places = model.data_preprocessor.places(present)
        merged = len(model.streams) < len(model.data_preprocessor.modalities)
        self.names = [ENSEMBLE, *(model.streams if merged else present)]
        self.grid = model.backbone.stream_grid
        self.resize = ResizeLike(model.align_corners)
        self.activate: nn.Module = nn.Identity()
        if isinstance(model, CENSaliency):
            self.images, self.activate = self.names, Probability()

    def outputs(
        self, unroller: Unroller, x: dict[str, fx.Node], like: fx.Node
    ) -> dict[str, fx.Node]:
        with self.grid.only(modalities=self.places):
            logits = unroller.unroll(_EncodeDecode(self.model), list(x.values()))
            ensemble = WeightedSum(self.model.ensemble.scores()[0].tolist())
        found = [unroller.add(ensemble, *logits), *logits]
        sized = [unroller.add(self.resize, y, like) for y in found]
        return {
            name: unroller.add(self.activate, y) if name in self.images else y
            for name, y in zip(self.names, sized, strict=True)
        }

    def folded(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        like = next(iter(x.values()))
        found = self.model(torch.cat(list(x.values()), 1), present=list(x))
        return {name: self.activate(self.resize(y, like)) for name, y in found.items()}


class _EncodeDecode(nn.Module):
    def __init__(self, model: CENEncoderDecoder) -> None:
        super().__init__()
        self.backbone, self.decode_head = model.backbone, model.decode_head
        self.neck = model.neck if model.with_neck else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.decode_head(self.neck(self.backbone(x)))


class _MultiTask(_Plan):
    def __init__(self, model: CENMultiTask, present: Sequence[str]) -> None:
        super().__init__(model, present)
        every = {task: model.names_of(task) for task in model.plan.tasks}
        self.groups = model.plan.groups(present)
        self.streams = every
        if not model.merged:
            names = list(every)
            places = {names[t]: own for tasks, own in self.groups for t in tasks}
            self.streams = {
                task: tuple(every[task][m] for m in places[task])
                for task in names
                if task in places
            }
        of_images = flatten(
            {
                task: dict.fromkeys((ENSEMBLE, *own), model.heads[task].of_images)
                for task, own in self.streams.items()
            }
        )
        self.names = list(of_images)
        self.images = [name for name in self.names if of_images[name]]
        self.grid = getattr(model.network, 'grid', model.plan.grid)
        self.divisor = 2 ** getattr(model.network, 'downs', 0)

    def outputs(
        self, unroller: Unroller, x: dict[str, fx.Node], like: fx.Node
    ) -> dict[str, fx.Node]:
        if self.model.merged:
            raise ValueError(
                'fusion with merge=True is not exchange and cannot be deployed: export the model '
                'as it is, without deploying'
            )
        made: dict[str, fx.Node] = {}
        for tasks, places in self.groups:
            with self.grid.only(tasks=tasks, modalities=places):
                made |= self._of_group(unroller, tasks, x, like)
        return made

    def _of_group(
        self, unroller: Unroller, tasks: list[int], x: dict[str, fx.Node], like: fx.Node
    ) -> dict[str, fx.Node]:
        """Outputs of tasks whose streams are present."""
        model = self.model
        chosen = [list(model.plan.tasks)[t] for t in tasks]
        results = self._results(unroller, [x[name] for t in chosen for name in self.streams[t]])
        if isinstance(model.network, CENDenseNetwork):
            resize = ResizeLike(model.network.align_corners)
            results = [unroller.add(resize, node, like) for node in results]
        made: dict[str, fx.Node] = {}
        scores = model.ensemble.scores().tolist()
        for i, task in enumerate(chosen):
            names = self.streams[task]
            activate = Activate(model.heads[task])
            own = [unroller.add(activate, y) for y in results[i * len(names) :][: len(names)]]
            made[flat_name(task, ENSEMBLE)] = unroller.add(WeightedSum(scores[i]), *own)
            made |= {flat_name(task, name): y for name, y in zip(names, own, strict=True)}
        return made

    def _results(self, unroller: Unroller, streams: list[fx.Node]) -> list[fx.Node]:
        network = self.model.network
        if isinstance(network, CENUNetGenerator):
            return unroller.unroll(_UNet(network), streams)
        results = unroller.unroll(_Dense(network), streams)
        if network.lock_step:
            return results
        # every head ran on every stream: take the task's own, the others fall away
        tasks = self.grid.present('tasks')
        return [heads[tasks[s // self.grid.modalities]] for s, heads in enumerate(results)]

    def folded(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        found = flatten(self.model.outputs(x))
        return {name: to_image(y) if name in self.images else y for name, y in found.items()}


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
