"""Quantise exported files to int8 by ONNX Runtime's own tool, and measure what that costs.

All nodes are quantised first. If the labels get worse by more than is allowed, the nodes of the
parts that change the labels most stay in float, part by part.
"""

from __future__ import annotations

import inspect
import itertools
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from ..evaluation.stream_iou_metric import StreamIoUMetric
from ..files import whole_file
from ..models.label_map import label_map, resize_labels
from .network import pad_to, padded
from .onnx import METADATA, OnnxNetwork, import_onnx, save

# What ONNX Runtime computes in int8 on a CPU, as far as networks of this package have it.
KINDS = (
    'Conv', 'ConvTranspose', 'Relu', 'Clip', 'Add', 'MaxPool', 'AveragePool', 'Concat', 'Gather',
    'Slice', 'Split', 'Resize', 'Pad',
)  # fmt: skip
PARTS = 16  # consecutive nodes, which are int8 or float together
TRIALS = 8  # frames on which the parts are compared
MAX_LOSS = 0.5  # points of mIoU
MAX_CHANGED = 3.0  # per cent of the pixels, where there are no labels
IGNORED = 255


@dataclass(frozen=True)
class CalibrationFrame:
    """A frame as the network takes it.

    Attributes:
        inputs: ``(C_m, H, W)`` by modality.
        label: ``(H', W')`` integers, 255 for void; None if the frame has none.
    """

    inputs: Mapping[str, Tensor]
    label: Tensor | None = None


@dataclass(frozen=True)
class Loss:
    """What quantisation costs.

    Attributes:
        points: Loss of mIoU in points where frames have labels, else per cent of the pixels whose
            label changes. Of several outputs it is that of the worst one.
        float_miou: mIoU of the float file in per cent, None without labels.
        frames: Number of frames it was measured on.
    """

    points: float
    float_miou: float | None
    frames: int

    def __str__(self) -> str:
        if self.float_miou is None:
            return f'{self.points:.2f} % of the pixels of {self.frames} frames change their label'
        return (
            f'mIoU {self.float_miou:.2f} becomes {self.float_miou - self.points:.2f} '
            f'({-self.points:+.2f}) on {self.frames} frames'
        )


def write_int8(
    path: Path,
    out: Path,
    frames: Sequence[CalibrationFrame],
    max_loss: float | None = None,
    report: Callable[[str], None] = print,
) -> Loss:
    """Quantise an exported file.

    Ranges and sensitive parts are found on one half of the frames, the loss is measured on the
    other half.

    Args:
        path: File of :func:`~mmcen.deploy.export_onnx` in float.
        out: File to write, if the loss is small enough.
        frames: Frames for calibration, 4 at least. Either all or none have labels.
        max_loss: Largest loss, see :class:`Loss`; by default 0.5 points of mIoU, or 3 % of the
            pixels without labels.
        report: Gets a sentence about each step.

    Returns:
        The loss on the frames that were not used for calibration.

    Raises:
        ValueError: If the file gives images, there are too few frames, or the loss is too large.
    """
    network = OnnxNetwork(path)
    if network.images:
        raise ValueError(
            f'int8 is checked by label maps, and {path} gives images: leave --int8 out'
        )
    if len(frames) < 4:
        raise ValueError(f'{len(frames)} frames are too few to calibrate and check: give 4 or more')
    known, unseen = frames[::2], frames[1::2]
    labelled = frames[0].label is not None
    if not labelled:
        report('the frames have no label gt_sem_seg: the loss is in pixels that change their label')
    allowed = max_loss if max_loss is not None else (MAX_LOSS if labelled else MAX_CHANGED)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        judge = _Judge(network, {'known': known, 'unseen': unseen})
        quantiser = _Quantiser(path, Path(folder), network, known)
        best, loss = _search(quantiser, judge, allowed, report)
        if not loss.points <= allowed:  # also if there is no number, without a labelled pixel
            raise ValueError(
                f'int8 costs too much: {loss}, {allowed:g} is allowed: allow more by --max-loss, '
                'calibrate on more frames, or use the float file. No file was written'
            )
        with whole_file(out) as part:
            shutil.copyfile(best, part)
    return loss


def _search(
    quantiser: _Quantiser, judge: _Judge, allowed: float, report: Callable[[str], None]
) -> tuple[Path, Loss]:
    """Return the file with the fewest float parts that holds, or the last one tried."""
    parts = quantiser.parts
    losses = {}
    for bits in (7, 8):
        quantiser.bits = bits
        path = quantiser.write(parts)
        losses[bits] = loss = judge.loss(path, 'known')
        report(f'all of {len(quantiser.nodes)} nodes in int8, weights of {bits} bits: {loss}')
    if losses[7].points < losses[8].points:
        quantiser.bits, loss = 7, losses[7]
        path = quantiser.write(parts)
    ranked: list[list[str]] = []
    kept: list[list[str]] = []
    while True:
        if loss.points <= allowed / 2 or len(kept) >= len(parts) // 2:
            unseen = judge.loss(path, 'unseen')
            report(f'{len(kept)} of {len(parts)} parts in float, other frames: {unseen}')
            if unseen.points <= allowed or len(kept) >= len(parts) // 2:
                return path, unseen
        if not ranked:
            changes = [
                judge.changed(quantiser.write([part]), 'known')
                for part in track(parts, 'int8 in one part alone')
            ]
            order = sorted(range(len(parts)), key=changes.__getitem__, reverse=True)
            ranked = [parts[i] for i in order]
            worst = ', '.join(f'part {i}: {changes[i]:.2f} %' for i in order[:4])
            report(f'pixels that change their label if one part alone is int8: {worst}')
        kept = ranked[: len(kept) + 1]
        path = quantiser.write([part for part in parts if part not in kept])
        loss = judge.loss(path, 'known')
        report(f'{len(kept)} of {len(parts)} parts in float: {loss}')


class _Quantiser:
    """Writes a file with some of its nodes in int8.

    Attributes:
        nodes: Names of the nodes that can be int8, in the order of the graph.
        parts: The same, divided into consecutive parts.
        bits: Bits of a weight. Processors without VNNI instructions saturate sums of products of 8
            bits, which is measured where the file is made.
    """

    bits = 8

    def __init__(
        self, path: Path, folder: Path, network: OnnxNetwork, frames: Sequence[CalibrationFrame]
    ) -> None:
        from onnxruntime.quantization.shape_inference import quant_pre_process

        self.folder = folder
        self.prepared = folder / 'prepared.onnx'
        quant_pre_process(path, self.prepared, skip_symbolic_shape=True)  # folds constants
        self.nodes = _quantisable(import_onnx().load(self.prepared).graph)
        count = min(PARTS, len(self.nodes))
        edges = [len(self.nodes) * i // count for i in range(count + 1)]
        self.parts = [self.nodes[a:b] for a, b in itertools.pairwise(edges)]
        self._network, self._frames = network, frames
        self._facts = json.loads(_metadata(path)[METADATA])

    def write(self, parts: Sequence[Sequence[str]]) -> Path:
        """Return a file in which these parts are int8; the next call overwrites it."""
        from onnxruntime import quantization

        path = self.folder / 'int8.onnx'
        # older versions, such as the last one for Python 3.10, measure the ranges each time
        known = inspect.signature(quantization.quantize_static).parameters
        name = 'calibration_cache_path'
        cache: Any = {name: self.folder / 'ranges.json'} if name in known else {}
        quantization.quantize_static(
            self.prepared,
            path,
            _reader(self._network, track(self._frames, 'ranges of values', transient=True)),
            op_types_to_quantize=list(KINDS),
            per_channel=True,
            reduce_range=self.bits == 7,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_quantize=[node for part in parts for node in part],
            **cache,
        )
        save(import_onnx().load(path), self._facts, path)
        return path


def _reader(network: OnnxNetwork, frames: Iterable[CalibrationFrame]) -> Any:
    """Give ONNX Runtime's calibration one frame after the other."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.frames = iter(frames)

        def get_next(self) -> dict | None:
            for frame in self.frames:
                x = pad_to(network.divisor, _stack(network, frame))
                return {name: one.numpy() for name, one in zip(network.inputs, x, strict=True)}
            return None

    return Reader()


def _stack(network: OnnxNetwork, frame: CalibrationFrame) -> list[Tensor]:
    return [frame.inputs[name][None].float() for name in network.inputs]


def _quantisable(graph: Any) -> list[str]:
    """Names of the nodes of :data:`KINDS` that are a convolution or have one behind them.

    What comes after the classifiers stays in float.
    """
    before = {name for node in graph.node if node.op_type in KINDS[:2] for name in node.input}
    found = []
    for node in reversed(graph.node):
        convolved = any(name in before for name in node.output)
        if convolved:
            before.update(node.input)
        if node.op_type in KINDS and (convolved or node.op_type in KINDS[:2]):
            found.append(node.name)
    return found[::-1]


class _Judge:
    """Compares files with the float one on sets of frames."""

    def __init__(
        self, network: OnnxNetwork, frames: Mapping[str, Sequence[CalibrationFrame]]
    ) -> None:
        self.frames = frames
        self.float = {
            name: [_labels(network, frame) for frame in track(own, 'float', transient=True)]
            for name, own in frames.items()
        }
        self.classes = 1 + max(
            int(labels.max()) for own in self.float.values() for one in own for labels in one
        )
        for frame in (frame for own in frames.values() for frame in own):
            if frame.label is not None:
                known = frame.label[frame.label != IGNORED]
                self.classes = max(self.classes, 1 + int(known.max()) if len(known) else 0)

    def loss(self, path: Path, name: str) -> Loss:
        """Return the loss of a file on a set of frames."""
        frames, wanted = self.frames[name], self.float[name]
        network = OnnxNetwork(path)
        found = [_labels(network, frame) for frame in track(frames, 'int8', transient=True)]
        if frames[0].label is None:
            return Loss(_changed(found, wanted), None, len(frames))
        truth = [frame.label for frame in frames]
        losses = []
        for k in range(len(network.outputs)):
            before, after = (
                self._miou([labels[k] for labels in one], truth) for one in (wanted, found)
            )
            losses.append((before - after, before))
        return Loss(*max(losses), len(frames))

    def changed(self, path: Path, name: str) -> float:
        """Return the per cent of the pixels that a file labels in another way, on few frames."""
        network = OnnxNetwork(path)
        found = [_labels(network, frame) for frame in self.frames[name][:TRIALS]]
        return _changed(found, self.float[name][:TRIALS])

    def _miou(self, found: Sequence[Tensor], truth: Sequence[Any]) -> float:
        """Mean IoU in per cent over the classes that occur."""
        totals = [
            torch.stack(StreamIoUMetric.intersect_and_union(a, b, self.classes, IGNORED))
            for a, b in zip(found, truth, strict=True)
        ]
        intersection, union, *_ = torch.stack(totals).double().sum(0)
        return 100 * float((intersection / union)[union > 0].mean())


def _labels(network: OnnxNetwork, frame: CalibrationFrame) -> list[Tensor]:
    """Label maps of all outputs at the size of the frame's label, else of its input."""
    stacked = _stack(network, frame)
    height, width = (stacked[0] if frame.label is None else frame.label).shape[-2:]
    size = (height, width)
    threshold = network.facts.get('threshold', 0.5)
    made = []
    for name, (y,) in padded(network, stacked).items():
        if name in network.labels:
            made.append(resize_labels(y, size))
        elif len(y) == 1:
            made.append(resize_labels((y[0].sigmoid() > threshold).byte(), size))
        else:
            made.append(label_map(y, size).byte())
    return made


def _changed(found: Sequence[Sequence[Tensor]], wanted: Sequence[Sequence[Tensor]]) -> float:
    """Per cent of the pixels that differ, of the worst output."""
    outputs = range(len(found[0]))
    return max(
        100 * float(torch.stack([
            (a[k] != b[k]).double().mean() for a, b in zip(found, wanted, strict=True)
        ]).mean())
        for k in outputs
    )  # fmt: skip


def _metadata(path: Path) -> dict[str, str]:
    return {one.key: one.value for one in import_onnx().load(path).metadata_props}


@contextmanager
def _quiet() -> Any:
    """Without the hints of ONNX Runtime's tool, which are about other ways to use it."""
    logger, level = logging.getLogger(), logging.getLogger().level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
