"""A trained model at work: folded, taken apart, and in ONNX Runtime, against lists of streams."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from mmcen.cli.export import multiply_adds
from mmcen.core import exchange_norms
from mmcen.deploy import OnnxNetwork, as_it_is, deploy, export_onnx
from mmcen.models.decode_heads import refinenet_head

from .list_of_streams import ListOfStreams
from .workload import SEED, Workload

EXCHANGED = 0.3  # of all channels of the exchanging norms, as the paper says of its trainings
NAMES = ('onnx_runtime', 'apart', 'folded', 'list_of_streams')


class Running:
    """A network on its own frames, with the interface of a variant."""

    def __init__(self, work: Workload, network: Any, frames: tuple[Tensor, ...]) -> None:
        self.work, self.network, self.frames = work, network, frames

    def prepare(self, task: str) -> None:
        """It only infers."""

    @torch.no_grad()
    def run(self, task: str) -> Tensor:
        return torch.cat(self.network(*self.frames), 1)


class _List(nn.Module):
    """The list of streams, behind the interface of a deployed network; RefineNet's max pooling is
    torch's own, as in the official code, not ours."""

    def __init__(self, model: Any, size: tuple[int, int]) -> None:
        super().__init__()
        self.preprocess = model.data_preprocessor
        self.model = ListOfStreams(model).eval()
        self.size = size

    def forward(self, *frames: Tensor) -> tuple[Tensor]:
        inputs = dict(zip(self.preprocess.modalities, frames, strict=True))
        normalised = self.preprocess(dict(inputs=inputs))['inputs']
        metas = [dict(img_shape=self.size)] * len(frames[0])
        with mock.patch.object(refinenet_head, 'max_pool', stock_max_pool):
            return (self.model.encode_decode(normalised, metas),)


def stock_max_pool(x: Tensor) -> Tensor:
    return nn.functional.max_pool2d(x, 5, stride=1, padding=2)


def build(work: Workload) -> tuple[dict[str, Running], dict[str, float]]:
    """All four, of equal weights, on equal frames; and what is counted, not timed: ``exchanged``,
    the share of channels, ``folded`` and ``apart``, multiply-adds."""
    model: Any = work.build_model().eval()
    draw_exchanged(model)
    generator = torch.Generator().manual_seed(SEED)
    whole, apart = as_it_is(model), deploy(model)
    frames = tuple(
        255 * torch.rand(work.batch, channels, *work.shape, generator=generator)
        for channels in whole.inputs.values()
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'model.onnx')
        export_onnx(model, path)
        onnx = OnnxNetwork(path, work.threads)
    networks = (onnx, apart, whole, _List(model, work.shape))
    norms = [norm for _, norm in exchange_norms(model)]
    facts = {
        'exchanged': sum(int(norm.exchange_mask().sum()) for norm in norms)
        / sum(norm.exchangeable.numel() for norm in norms),
        'folded': multiply_adds(whole, frames),
        'apart': multiply_adds(apart, frames),
    }
    variants = {
        name: Running(work, network, frames) for name, network in zip(NAMES, networks, strict=True)
    }
    return variants, facts


@torch.no_grad()
def draw_exchanged(model: nn.Module) -> None:
    """Scales below the threshold for :data:`EXCHANGED` of all channels of each stream."""
    generator = torch.Generator().manual_seed(SEED)
    for _, norm in exchange_norms(model):
        gamma = norm.gamma()
        rank = torch.rand(gamma.shape, generator=generator).masked_fill(~norm.exchangeable, 2)
        count = round(EXCHANGED * norm.num_features)
        small = rank.argsort(-1).argsort(-1) < count
        draw = 0.1 + 0.4 * torch.rand(gamma.shape, generator=generator)
        gamma.copy_(torch.where(small & norm.exchangeable, 0.1 * norm.selection.threshold, draw))
