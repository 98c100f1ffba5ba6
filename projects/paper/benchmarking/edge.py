"""From decoded frames to label maps: exported files in float and int8, and the model in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn

from mmcen.apis import CENInferencer
from mmcen.apis.frames import Frame
from mmcen.apis.pipelines import find_test_set
from mmcen.core import exchange_norms
from mmcen.datasets import SyntheticRooms
from mmcen.deploy import OnnxNetwork, export_onnx
from mmcen.deploy.int8 import CalibrationFrame, write_int8
from mmcen.models.decode_heads import refinenet_head

from .deployed import draw_exchanged, stock_max_pool
from .list_of_streams import ListOfStreams, _reasons
from .workload import Workload

FRAMES = 8


class FromFile:
    """An exported file that predicts one frame after the other."""

    def __init__(self, work: Workload, path: Path, frames: Sequence[Frame]) -> None:
        self.inferencer = CENInferencer(OnnxNetwork(path, work.threads), show_progress=False)
        self.work, self.frames, self.turn = work, frames, 0

    def prepare(self, task: str) -> None:
        """It only infers."""

    def run(self, task: str) -> Tensor:
        """Label map of the next frame, ``(H, W)``."""
        frame = self.frames[self.turn % len(self.frames)]
        self.turn += 1
        packed = self.inferencer.load(frame)
        size = packed['data_samples'].ori_shape[:2]
        return self.labels(packed, (size[0], size[1]))

    def labels(self, packed: dict, size: tuple[int, int]) -> Tensor:
        found = self.inferencer.forward(pseudo_collate([packed]))
        name = self.inferencer.outputs[0]
        return torch.from_numpy(self.inferencer._array(name, found[name][0], size))


class Eager(FromFile):
    """The model in PyTorch, as lists of streams where these mirror it, else folded.

    Frames are loaded as for the file. Logits are resized to the frame before the argmax.
    """

    def __init__(self, work: Workload, path: Path, model: Any, frames: Sequence[Frame]) -> None:
        super().__init__(work, path, frames)
        self.preprocess, self.model = model.data_preprocessor, model
        model.predict_streams = False
        self.mirrored = next(_reasons(model), None) is None
        if self.mirrored:
            self.model = ListOfStreams(model).eval()
            self.model.predict_streams = False

    @torch.no_grad()
    def labels(self, packed: dict, size: tuple[int, int]) -> Tensor:
        inputs = self.preprocess(pseudo_collate([packed]))['inputs']
        metas = [dict(img_shape=inputs.shape[2:])]
        with mock.patch.object(refinenet_head, 'max_pool', stock_max_pool):
            logits = self.model.encode_decode(inputs, metas)
        return nn.functional.interpolate(logits, size, mode='bilinear')[0].argmax(0)


def build(
    work: Workload, files: Sequence[str], folder: Path
) -> tuple[dict[str, FromFile], dict[str, Any]]:
    """Variants by name, and what is counted: the size of the files in bytes.

    Args:
        work: Config, threads and size of the decoded frames.
        files: Exported files in float and int8; none to make both, of random weights.
        folder: Where they are made.
    """
    model: Any = work.build_model().eval()
    draw_exchanged(model)
    frames = _frames(work)
    paths = [Path(file) for file in files] or _export(work, model, frames, folder)
    variants: dict[str, FromFile] = {
        name: FromFile(work, path, frames)
        for name, path in zip(('float', 'int8'), paths, strict=True)
    }
    eager = Eager(work, paths[0], model, frames)
    variants['list_of_streams' if eager.mirrored else 'folded'] = eager
    norms = [norm for _, norm in exchange_norms(model)]
    exchanged = sum(int(norm.exchange_mask().sum()) for norm in norms)
    return variants, {
        'weights': list(files) or 'random',
        'exchanged': exchanged / sum(norm.exchangeable.numel() for norm in norms),
        'bytes': {name: path.stat().st_size for name, path in zip(variants, paths, strict=False)},
    }


def _frames(work: Workload) -> list[Frame]:
    """Rendered rooms as they are decoded: colour in 0..255, depth in metres."""
    rooms = SyntheticRooms(modalities=('rgb', 'depth'), size=work.shape, length=FRAMES, pipeline=[])
    return [Frame(str(i), dict(rooms.prepare_data(i)['modalities'])) for i in range(FRAMES)]


def _export(work: Workload, model: Any, frames: Sequence[Frame], folder: Path) -> list[Path]:
    """Export label maps of random weights; whether these agree does not matter for the time."""
    inferencer = CENInferencer(_with_config(model, work), show_progress=False, device='cpu')
    files = [folder / 'float.onnx', folder / 'int8.onnx']
    export_onnx(model, files[0], ['ensemble'], about=inferencer.about(), labels=True)
    given = [CalibrationFrame(inferencer.load(frame)['inputs']) for frame in frames]
    write_int8(files[0], files[1], given, max_loss=100)
    return files


def _with_config(model: Any, work: Workload) -> Any:
    """The model, which knows how its files are read."""
    model.cfg = work.cfg
    model.dataset_meta = find_test_set(work.cfg)['metainfo']
    return model
