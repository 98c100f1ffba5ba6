"""mmseg's backbones and decode heads over a stream grid, with the heads in lock step."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from mmengine.model import BaseModule, normal_init
from mmengine.registry import MODELS
from mmseg.models.utils import resize
from torch import Tensor, nn

from ...core import StreamGrid, convert
from ...layers import PerTask
from ..multi_stream import make_multi_stream


@MODELS.register_module()
class CENDenseNetwork(BaseModule):
    """A backbone of mmseg, shared by all streams, and a decode head of mmseg for each task.

    Heads of one kind run in lock step: they become one head in which every convolution is a
    :class:`PerTask` layer with a copy for each task, so that norms exchange between tasks after
    every layer. Heads of different kinds run one after the other and do not exchange.

    Args:
        inputs: Input of each stream, as for :class:`CENUNetGenerator`.
        out_channels: Channels of each task's output.
        backbone: Config of any mmseg backbone, unchanged.
        decode_head: Config of one head for all tasks, or one for each; without ``num_classes``.
            The head's own loss is not used.
        neck: Config of any mmseg neck, unchanged.
        exchange: Arguments of :func:`mmcen.convert` for the backbone, which exchanges along the
            modalities; see :class:`CENEncoderDecoder`.
        decoder: Arguments of :func:`mmcen.convert` for heads in lock step, which exchange along the
            tasks; ``after`` is ``'every'`` by default, None for no exchange.
        init_cfg: As in mmengine.

    Input ``(B, D, C, H, W)``. Output: T tensors ``(B, M, C', H, W)``, resized to the input.

    Raises:
        ValueError: If heads of different kinds should exchange.
    """

    def __init__(
        self,
        inputs: Sequence[Sequence[int]],
        out_channels: Sequence[int],
        backbone: dict,
        decode_head: dict | Sequence[dict],
        neck: dict | None = None,
        exchange: Mapping[str, Any] | None = None,
        decoder: Mapping[str, Any] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.grid = StreamGrid(tasks=len(inputs), modalities=len(inputs[0]))
        self.inputs = [number for row in inputs for number in row]  # of the T*M streams
        self.backbone = MODELS.build(backbone)
        make_multi_stream(self.backbone, self.grid, exchange)
        self.neck = MODELS.build(neck) if neck else nn.Identity()
        convert(self.neck, exchange=None, grid=self.grid)
        given = [decode_head] * self.grid.tasks if isinstance(decode_head, dict) else decode_head
        cfgs = [
            {**deepcopy(dict(cfg)), 'num_classes': channels, 'out_channels': channels}
            for cfg, channels in zip(given, out_channels, strict=True)
        ]
        self.align_corners = bool(cfgs[0].get('align_corners', False))
        self.lock_step = all(dict(cfg) == dict(given[0]) for cfg in given)
        heads = [MODELS.build(cfg) for cfg in cfgs]
        if self.lock_step:
            self._join(heads, decoder)
        elif (decoder or {}).get('after'):
            raise ValueError(
                'decode heads of different kinds run one after the other and cannot exchange: '
                'give one decode_head for all tasks, or decoder=dict(after=None)'
            )
        else:
            self.of_task = StreamGrid(1, self.grid.modalities)  # of each head
            self.decode_heads = nn.ModuleList(
                convert(h, exchange=None, grid=self.of_task) for h in heads
            )

    def _join(self, heads: list[Any], options: Mapping[str, Any] | None) -> None:
        """Merge all heads into one with per-task convolutions; keep the classifiers separate."""
        head = heads[0]
        classifiers = iter([head.conv_seg for head in heads])
        head.conv_seg = nn.Identity()
        names = [name for name, m in head.named_modules() if isinstance(m, nn.Conv2d)]
        make_multi_stream(head, self.grid, options, 'tasks', 'every')
        for name in names:
            convs = iter([head.get_submodule(name) for head in heads])
            parent, _, child = name.rpartition('.')
            setattr(head.get_submodule(parent), child, PerTask(convs.__next__, self.grid))
        self.decode_head = head
        self.classifiers = PerTask(classifiers.__next__, self.grid)

    def init_weights(self) -> None:
        """Initialise as mmseg does, including the separate classifiers."""
        super().init_weights()
        for conv in self.classifiers.copies if self.lock_step else ():
            normal_init(conv, std=0.01)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute T outputs ``(B, M, C', H, W)`` of inputs ``(B, D, C, H, W)``."""
        size = x.shape[-2:]
        numbers = [self.inputs[s] for s in self.grid.streams]
        streams = torch.stack([x[:, i] for i in numbers], 1).unflatten(1, self.grid.shape)
        streams = self.grid.fold(streams)  # (T*M*B, C, H, W)
        features = self.neck(self.backbone(streams))
        outputs = self._together(features) if self.lock_step else self._one_by_one(features)
        return tuple(self._resize(y, size) for y in outputs)

    def _together(self, features: Sequence[Tensor]) -> list[Tensor]:
        return self.classifiers.by_task(self.decode_head(features))

    def _one_by_one(self, features: Sequence[Tensor]) -> list[Tensor]:
        by_task = zip(*(self.grid.unfold(f).unbind(1) for f in features), strict=True)
        heads = [self.decode_heads[t] for t in self.grid.present('tasks')]
        with self.of_task.only(modalities=self.grid.present('modalities')) as grid:
            return [
                grid.unfold(head([grid.fold(f[:, None]) for f in own]))[:, 0]
                for head, own in zip(heads, by_task, strict=True)
            ]

    def _resize(self, y: Tensor, size: Sequence[int]) -> Tensor:
        flat = resize(y.flatten(0, 1), size, mode='bilinear', align_corners=self.align_corners)
        return flat.unflatten(0, y.shape[:2])
