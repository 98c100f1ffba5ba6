"""Write ONNX files of a trained model with metadata, and compare them with PyTorch."""

import importlib
import json
import math
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..files import whole_file
from ..version import __version__
from .facts import check_facts
from .fingerprint import fingerprint
from .network import DeployedNetwork, Labelled, as_it_is, deploy

TOLERANCE = 1e-4  # of the largest output, or of 1
METADATA, CHECKSUM = 'mmcen', 'mmcen_sha256'


def export_onnx(
    model: nn.Module,
    path: str | Path,
    outputs: Sequence[str] | None = None,
    size: tuple[int, int] = (256, 256),
    whole: bool = False,
    about: dict[str, Any] | None = None,
    present: Sequence[str] | None = None,
    labels: bool = False,
) -> float:
    """Write a model for ONNX Runtime, with dynamic batch, height and width, and compare the two.

    Args:
        model: a trained CENEncoderDecoder, CENMultiTask or CENTranslator.
        path: the file to write, atomically and after the comparison.
        outputs: as for :func:`deploy`; a stream's is called ``<modality>_out`` in the file.
        size: (height, width) of the frame to trace with and to compare on; a second comparison is
            on two frames of half that size.
        whole: leave the model folded, for parts that :func:`deploy` does not support.
        about: further metadata of the file (JSON), such as the config and the classes.
        present: modalities that the file takes, as for :func:`deploy`.
        labels: give label maps in place of logits, see :class:`Labelled`.

    Returns:
        The largest difference from the model as it is, relative to the largest output, or to 1 if
        that is smaller. That of a label map is how far the logit of a chosen class is below the
        largest one.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime is missing.
        ValueError: as :func:`deploy`; ``size`` does not fit; or the comparison fails.
    """
    import_onnx()
    reference = as_it_is(model, outputs, present)
    network = reference if whole else deploy(model, outputs, present)
    network.check_size(size)
    if labels:
        network = Labelled(network, _threshold_of(model)).eval()
    from .rewrite import rewrite  # onnx and mmseg's backbones are not needed to read files
    from .sharing import share_weights
    from .windows import follow_sizes

    proto = _trace(follow_sizes(network), size)

    rewrite(proto, network)
    share_weights(proto, network)
    facts = {
        'version': __version__,
        'inputs': network.inputs,
        'outputs': network.outputs,
        'images': network.images,
        'labels': network.labels,
        'divisor': network.divisor,
        **(about or {}),
    }
    with whole_file(path) as part:
        save(proto, facts, part)
        height, width = (n // 2 // network.divisor * network.divisor for n in size)
        differences = [
            _difference(reference, part, _frames(network, batch, shape), _threshold_of(model))
            for batch, shape in ((1, size), (2, (height, width)))
        ]
        worst = float(torch.tensor(differences).max())  # not a number, if one is not
        if not worst <= TOLERANCE:
            raise ValueError(
                f'ONNX Runtime and PyTorch differ by {worst:.1e} of the largest output, more than '
                f'{TOLERANCE:.0e}: the file was not written'
            )
    return worst


def _threshold_of(model: nn.Module) -> float:
    """Probability above which a single logit is class 1."""
    threshold = getattr(getattr(model, 'decode_head', None), 'threshold', None)
    return 0.5 if threshold is None else threshold


def _trace(network: DeployedNetwork, size: tuple[int, int]) -> Any:
    """Return the ONNX model of a network."""
    frames = _frames(network, 2, size)  # a batch of 1 would be taken for a constant
    free = torch.export.Dim.DYNAMIC
    # its progress lines would break into a tool's own
    program = torch.onnx.export(
        network,
        frames,
        input_names=list(network.inputs),
        output_names=_in_file(network.outputs, network.inputs),
        dynamo=True,
        dynamic_shapes={'modalities': tuple({0: free, 2: free, 3: free} for _ in frames)},
        verbose=False,
    )
    assert program is not None
    return program.model_proto


def save(proto: Any, facts: dict[str, Any], path: Path) -> None:
    """Write an ONNX model with metadata and a checksum."""
    onnx = import_onnx()
    text = json.dumps(facts)
    check_facts(json.loads(text))
    del proto.metadata_props[:]
    checksum = fingerprint(proto.SerializeToString(), text)
    onnx.helper.set_model_props(proto, {METADATA: text, CHECKSUM: checksum})
    onnx.save(proto, path)


def import_onnx(what: str = 'onnx') -> Any:
    """What writes ONNX files, or ``'onnxruntime'``, which reads them.

    Raises:
        ImportError: it is missing.
    """
    try:
        if what == 'onnx':
            for name in ('onnxscript', 'onnxruntime'):  # torch writes with the first
                importlib.import_module(name)
        return importlib.import_module(what)
    except ImportError as error:
        raise ImportError(
            f"{error.name} is not installed, which ONNX needs: pip install -e '.[onnx]'"
        ) from error


class OnnxNetwork:
    """A file of :func:`export_onnx`, run by ONNX Runtime on the CPU, with the interface of a
    :class:`DeployedNetwork`.

    Args:
        path: the file.
        threads: 0 takes all cores.

    Attributes:
        facts: what the file says of itself.

    Raises:
        ImportError: onnxruntime is missing.
        ValueError: the file is no ONNX, another program wrote it, or its metadata do not hold.
    """

    def __init__(self, path: str | Path, threads: int = 0) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(f'{path} does not exist')
        if threads < 0:
            raise ValueError(f'threads must be 1 or more, or 0 for all cores, got {threads}')
        self.path = path
        runtime = import_onnx('onnxruntime')
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._session = runtime.InferenceSession(
                str(path), options, providers=['CPUExecutionProvider']
            )
        except Exception as error:  # of many kinds, with no parent of their own
            raise ValueError(
                f'{path} is no ONNX file that runs here ({error}): write it by mmcen export'
            ) from error
        try:
            properties = self._session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError as error:
            raise ValueError(f'{path} is damaged ({error}): copy it again') from error
        written, checksum = properties.get(METADATA), properties.get(CHECKSUM)
        if written is None:
            raise ValueError(f'{path} does not say what it is: write it by mmcen export')
        if checksum is not None and checksum != fingerprint(Path(path).read_bytes(), written):
            raise ValueError(
                f'{path} is damaged, its checksum is wrong: copy it again, or write it by mmcen '
                'export'
            )
        try:
            self.facts = check_facts(json.loads(written))
            self.inputs: dict[str, int] = self.facts['inputs']
            self._check_graph()
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(
                f'the metadata of {path} do not hold ({error}): write it by mmcen export'
            ) from error
        self.outputs, self.images = tuple(self.facts['outputs']), tuple(self.facts['images'])
        self.labels = tuple(self.facts['labels'])
        self.divisor: int = self.facts['divisor']

    def _check_graph(self) -> None:
        """Compare names and channels with those of the graph."""
        self._names = _in_file(self.facts['outputs'], self.inputs)
        channels = {one.name: one.shape[1:2] for one in self._session.get_inputs()}
        if channels != {name: [count] for name, count in self.inputs.items()}:
            raise ValueError(f'inputs {self.inputs}, but the graph has {channels}')
        made = [one.name for one in self._session.get_outputs()]
        if sorted(made) != sorted(self._names):
            raise ValueError(f'outputs {self._names}, but the graph has {made}')
        ranks = {one.name: len(one.shape) for one in self._session.get_outputs()}
        for name in self.facts['labels']:
            (own,) = _in_file([name], self.inputs)
            if ranks[own] != 3:
                raise ValueError(f'{name} is no label map (B, H, W) in the graph')

    def __call__(self, *modalities: Tensor) -> tuple[Tensor, ...]:
        fed = {name: x.numpy() for name, x in zip(self.inputs, modalities, strict=True)}
        return tuple(torch.from_numpy(y) for y in self._session.run(self._names, fed))


def _in_file(outputs: Sequence[str], inputs: Container[str]) -> list[str]:
    """Names of outputs in a file, where no name may stand twice."""
    return [name + '_out' * (name in inputs) for name in outputs]


def _frames(network: DeployedNetwork, batch: int, size: tuple[int, int]) -> tuple:
    """Frames of colour and of anything else, in the range of colour."""
    generator = torch.Generator().manual_seed(0)
    return tuple(
        255 * torch.rand(batch, channels, *size, generator=generator)
        for channels in network.inputs.values()
    )


def _difference(reference: DeployedNetwork, path: Path, frames: tuple, threshold: float) -> float:
    with torch.no_grad():
        pairs = list(zip(OnnxNetwork(path)(*frames), reference(*frames), strict=True))
    differences = [
        (_shortfall(y, x, threshold) if y.dim() == 3 else (y - x).abs()).max()
        / x.abs().max().clamp(min=1)
        for y, x in pairs
    ]
    return float(torch.stack(differences).max())


def _shortfall(labels: Tensor, logits: Tensor, threshold: float) -> Tensor:
    """How far the logits of the chosen classes are below the largest ones."""
    if logits.shape[1] == 1:
        least = torch.full_like(logits, math.log(threshold / (1 - threshold)))
        logits = torch.cat([least, logits], 1)
    return logits.amax(1) - logits.gather(1, labels[:, None].long())[:, 0]
