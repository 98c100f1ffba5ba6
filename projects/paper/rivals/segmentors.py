"""Rivals and ablations of CEN for segmentation: Tables 1 to 3."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmcen.core import StreamGrid, convert_norm, find_norms
from mmcen.models import CENEncoderDecoder

from .fusion import check_merge, fusion_losses
from .private_convs import unshare


@MODELS.register_module()
class UnsharedEncoderDecoder(CENEncoderDecoder):
    """Segmentor whose streams share other parts: the versions of Table 1.

    Args:
        args, kwargs: Arguments of :class:`~mmcen.models.CENEncoderDecoder`.
        norms: ``'private'``, or ``'shared'`` for stock norms of all streams.
        convs: ``'shared'``, or ``'private'`` for a copy of all convolutions for each stream.

    Raises:
        ValueError: If a word is unknown.
    """

    def __init__(
        self, *args: Any, norms: str = 'private', convs: str = 'shared', **kwargs: Any
    ) -> None:
        for what, word in (('norms', norms), ('convs', convs)):
            if word not in ('private', 'shared'):
                raise ValueError(f"{what} must be 'private' or 'shared', got '{word}'")
        self.norms, self.convs = norms, convs
        super().__init__(*args, **kwargs)

    def _make_multi_stream(self, exchange: dict | None) -> None:
        if self.norms == 'private':
            super()._make_multi_stream(exchange)
        else:
            self.backbone.stream_grid = self.grid
        if self.convs == 'private':
            for name, part in self.named_children():
                if name != 'data_preprocessor':
                    unshare(part, self.grid)


@MODELS.register_module()
class FusionEncoderDecoder(UnsharedEncoderDecoder):
    """Segmentor with fusion layers after stages of the backbone (Tables 2, 3).

    Args:
        args, kwargs: Arguments of :class:`UnsharedEncoderDecoder`. Without ``exchange`` the fusion
            layers alone fuse.
        fusion: Config of a :class:`~projects.paper.rivals.fusion.Fusion` with ``after``, the names
            of the parts of the backbone that it follows, such as ``('layer1', 'layer4')``. With
            ``merge=True`` streams have private convolutions up to the last of them, and one
            stream continues; features of earlier stages are those of the first stream.

    Raises:
        ValueError: If the backbone has no such part, or convolutions are private with ``merge``.
    """

    def __init__(self, *args: Any, fusion: Mapping[str, Any], **kwargs: Any) -> None:
        self.fusion_cfg = dict(fusion)
        check_merge(fusion, kwargs.get('convs', 'shared'))
        super().__init__(*args, **kwargs)

    def _make_multi_stream(self, exchange: dict | None) -> None:
        cfg = dict(self.fusion_cfg)
        if exchange and cfg.get('merge'):
            raise ValueError(
                f'streams of merge=True are private and cannot exchange: leave exchange={exchange} '
                'out'
            )
        channels, early = _first_run(self.backbone, _parts(self.backbone, cfg.pop('after', ())))
        places = list(channels)  # in the order in which they run
        grid = self.grid
        if cfg.get('merge'):
            unshare(self.backbone, grid, only=early)
            for name, norm in list(find_norms(self.backbone)):
                if norm in early:
                    parent, _, child = name.rpartition('.')
                    new = convert_norm(norm, grid, 'modalities', None)
                    setattr(self.backbone.get_submodule(parent), child, new)
            self.backbone.stream_grid = grid
            self.grid, self.streams = StreamGrid(), ('fused',)
        else:
            super()._make_multi_stream(exchange or dict(after=None))
        for place in places:
            last = place is places[-1]
            own = dict(cfg, channels=channels[place], grid=grid, last=last)
            place.add_module('fusion', MODELS.build(own))

    @contextmanager
    def _of_present(self, inputs: Tensor, places: Sequence[int]) -> Iterator[Tensor]:
        """Set absent inputs to zero, which is their mean: fusion layers take all streams."""
        parts = inputs.unflatten(1, (len(places), -1))  # (B, P, C, H, W)
        count = len(self.data_preprocessor.modalities)
        whole = parts.new_zeros(len(parts), count, *parts.shape[2:])
        whole[:, list(places)] = parts
        yield whole.flatten(1, 2)

    def extract_feat(self, inputs: Tensor) -> list[Tensor]:
        features = super().extract_feat(inputs)
        batch = len(inputs) * self.grid.size
        return [x[:batch] for x in features]  # the first stream, where others ended later

    def loss(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        return super().loss(*args, **kwargs) | fusion_losses(self)


def _parts(backbone: nn.Module, names: Sequence[str]) -> list[nn.Sequential]:
    """Return the parts of a backbone that a layer follows."""
    listed = list(names) if isinstance(names, (list, tuple)) else [names]
    parts = dict(backbone.named_modules())
    if not listed or not all(isinstance(parts.get(n), nn.Sequential) for n in listed):
        known = [n for n, m in parts.items() if isinstance(m, nn.Sequential) and n]
        raise ValueError(f'fusion after {listed}: give names of {known[:12]}')
    return [parts[name] for name in dict.fromkeys(listed)]  # type: ignore[misc]


def _first_run(
    backbone: nn.Module, places: Sequence[nn.Module]
) -> tuple[dict[nn.Module, int], set[nn.Module]]:
    """Channels behind some parts, and the layers that run before the last of them ends."""
    channels: dict[nn.Module, int] = {}
    early: set[nn.Module] = set()

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if len(channels) < len(places):
            early.add(module)
        if module in places:
            channels[module] = output.shape[1]

    handles = [m.register_forward_hook(note) for m in backbone.modules()]
    training = backbone.training
    conv: Any = next(m for m in backbone.modules() if isinstance(m, nn.Conv2d))
    try:
        with torch.no_grad():
            backbone.eval()  # mmseg's returns nothing
            backbone(torch.zeros(1, conv.in_channels, 64, 64).to(conv.weight))
    finally:
        backbone.train(training)
        for handle in handles:
            handle.remove()
    return channels, early
