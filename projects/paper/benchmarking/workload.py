"""What is measured: variants of a config's model, random data, a train step, an inference."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, init_default_scope
from mmengine.runner import autocast
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmcen.core import exchange_norms
from mmcen.layers import ExchangeNorm
from mmcen.models.segmentors import CENEncoderDecoder

from .list_of_streams import ListOfStreams, check_mirrors

TASKS = ('train_step', 'inference')
OURS = 'ours'
SMALL_SHARE = 0.3  # of the scaling factors of every exchanging norm, below its threshold
SEED = 0


@dataclass
class Workload:
    """Settings of a measurement; they are small, so that they can be sent to other processes.

    Args:
        cfg: The config, with ``model`` and ``optim_wrapper``.
        shape: Height and width in pixels.
        batch: B, frames per step.
        device: 'cpu' or 'cuda'.
        precision: 'fp32', or 'bf16' for autocast to bfloat16.
        channels_last: Memory format of the convolutions' weights, hence of the features.
        threads: Number of threads of PyTorch on the CPU.
    """

    cfg: Config
    shape: tuple[int, int]
    batch: int
    device: str
    precision: str
    channels_last: bool
    threads: int
    rivals: ClassVar = ('exchange_off', 'list_of_streams')
    # 'compiled' takes minutes before the first step; 'fp32' is for --precision bf16
    on_request: ClassVar = ('compiled', 'fp32')

    def check(self, names: Sequence[str]) -> None:
        """Complain before anything is measured.

        Raises:
            ValueError: If the config has no model with streams, or a rival cannot be built for it.
        """
        for key in ('model', 'optim_wrapper'):
            if key not in self.cfg:
                raise ValueError(f'the config has no {key}: give one that trains, as configs/cen/')
        model = self.build_model()
        if not isinstance(model, CENEncoderDecoder):
            raise ValueError(
                f'the model is {type(model).__name__}, only CENEncoderDecoder is measured: '
                'give one of configs/cen/'
            )
        if 'list_of_streams' in names:
            check_mirrors(model)

    def build_model(self, streams: int | None = None) -> nn.Module:
        """The config's model with random weights and channels to exchange.

        Args:
            streams: Number of equal modalities instead of those of the config.
        """
        cfg = deepcopy(self.cfg)
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        forget_pretrained(cfg.model)
        if streams is not None:
            set_streams(cfg.model.data_preprocessor, streams)
        torch.manual_seed(SEED)
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
        model.init_weights()
        draw_gammas(model)
        layout = torch.channels_last if self.channels_last else torch.preserve_format
        return model.to(self.device, memory_format=layout)

    def build(self, name: str) -> Variant:
        """Build 'ours', one of the rivals, or 'streams=N'; equal weights, equal data."""
        if name == 'fp32':
            return replace(self, precision=name).build(OURS)
        torch.set_num_threads(self.threads)
        streams = int(name.removeprefix('streams=')) if name.startswith('streams=') else None
        model = self.build_model(streams)
        inputs, samples = self.random_batch(model)
        if name == 'exchange_off':
            for _, norm in list(exchange_norms(model)):
                norm.exchange = False
        elif name == 'list_of_streams':
            model = ListOfStreams(model)
        elif name == 'compiled':
            for part in (model.backbone, model.decode_head):
                part.compile(fullgraph=True)
        return Variant(self, model, inputs, samples)

    def random_batch(self, model: nn.Module) -> tuple[Tensor, list[SegDataSample]]:
        """Normalised inputs (B, M*C, H, W) and labels, as the data preprocessor gives them."""
        generator = torch.Generator().manual_seed(SEED)
        channels = len(model.data_preprocessor.mean)
        inputs = torch.randn(self.batch, channels, *self.shape, generator=generator)
        samples = []
        for _ in range(self.batch):
            size = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), self.shape)
            label = torch.randint(model.num_classes, (1, *self.shape), generator=generator)
            sample = SegDataSample(metainfo=size, gt_sem_seg=PixelData(data=label))
            samples.append(sample.to(self.device))
        return inputs.to(self.device), samples

    def autocast(self) -> AbstractContextManager:
        return autocast(dtype=torch.bfloat16) if self.precision == 'bf16' else nullcontext()

    def optim_wrapper(self) -> dict:
        """The config's, at this precision and with a step of the optimizer every time."""
        cfg = deepcopy(self.cfg.optim_wrapper)
        for key in ('loss_scale', 'dtype', 'use_fp64', 'accumulative_counts', 'enabled'):
            cfg.pop(key, None)
        cfg.type = 'BFloat16OptimWrapper' if self.precision == 'bf16' else 'OptimWrapper'
        return cfg

    def sparsity(self) -> dict | None:
        """The config's SparsityHook, if it has one."""
        hooks = self.cfg.get('custom_hooks') or []
        return next((deepcopy(hook) for hook in hooks if hook.type == 'SparsityHook'), None)


class Variant:
    """A model with its optimizer and data, ready to be run."""

    def __init__(
        self, work: Workload, model: nn.Module, inputs: Tensor, samples: list[SegDataSample]
    ) -> None:
        self.work, self.model, self.inputs, self.samples = work, model, inputs, samples
        self.metas = [sample.metainfo for sample in samples]
        self.wrapper = build_optim_wrapper(model, work.optim_wrapper())
        self.optimizers = [self.wrapper.optimizer]
        sparsity = work.sparsity()
        self.coefficient = 0.0
        if sparsity is not None:
            hook = HOOKS.build(sparsity)
            if isinstance(model, ListOfStreams):
                self.coefficient = hook.coefficient
            else:
                hook.attach(model, self.wrapper.optimizer)

    def run(self, task: str) -> Tensor:
        """Run 'train_step' or 'inference' once; the loss, or the logits."""
        return getattr(self, task)()

    def prepare(self, task: str) -> None:
        """Put the model into the mode that a task runs in."""
        self.model.train(task == 'train_step')

    def train_step(self) -> Tensor:
        """Forward, losses, backward, penalty and the optimizer's step."""
        with self.wrapper.optim_context(self.model):
            losses = self.model.loss(self.inputs, self.samples)
            loss = sum(value for name, value in losses.items() if 'loss' in name)
        if self.coefficient:  # the official code's term of the loss; mmcen's hook does the same
            loss = loss + self.coefficient * self.model.penalty()
        self.wrapper.update_params(loss)
        return loss.detach()

    @torch.no_grad()
    def inference(self) -> Tensor:
        """Logits of the ensemble and the streams, as large as the input."""
        with self.work.autocast():
            return self.model.encode_decode(self.inputs, self.metas)


def quiet() -> None:
    """Keep OpenMMLab from reporting each initialised weight, each learning rate, old functions."""
    MMLogger.get_current_instance().setLevel('WARNING')
    warnings.filterwarnings('ignore', message='``build_loss`` would be deprecated')


def forget_pretrained(cfg: Any) -> None:
    """Drop what would load weights: a benchmark needs none, nor a network."""
    if isinstance(cfg, dict):
        for key, value in cfg.items():
            loads = isinstance(value, dict) and value.get('type') == 'Pretrained'
            if key == 'pretrained' or (key == 'init_cfg' and loads):
                cfg[key] = None
            else:
                forget_pretrained(value)
    elif isinstance(cfg, (list, tuple)):
        for value in cfg:
            forget_pretrained(value)


def set_streams(preprocessor: dict, streams: int) -> None:
    """Replace the modalities by ``streams`` equal ones with as many channels as theirs have."""
    modalities = preprocessor['modalities']
    channels = math.lcm(*(len(spec['mean']) for spec in modalities))
    spec = {'mean': [0.0] * channels, 'std': [1.0] * channels}
    preprocessor['modalities'] = [dict(name=f'stream{i}', **spec) for i in range(streams)]


@torch.no_grad()
def draw_gammas(model: nn.Module) -> None:
    """Random scaling factors, the same in every run, of which some make channels be exchanged.

    All CEN norms get gammas in 0.1..0.5, so that no residual branch starts at zero; in norms that
    exchange, :data:`SMALL_SHARE` of all channels (of a stream's own sub-part as well as outside it)
    lie within half the threshold.
    """
    generator = torch.Generator().manual_seed(SEED)
    for norm in (m for m in model.modules() if isinstance(m, ExchangeNorm)):
        draw = torch.rand(2, len(norm.weight), generator=generator)
        gamma = 0.1 + 0.4 * draw[0]
        if norm.exchanges:
            gamma = torch.where(
                draw[1] < SMALL_SHARE, norm.selection.threshold * (draw[0] - 0.5), gamma
            )
        norm.weight.copy_(gamma)
