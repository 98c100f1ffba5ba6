"""Rivals and ablations of CEN for translation: Tables 4, 8 and 10."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmcen.core import ExchangeNorm, StreamGrid
from mmcen.models import CENUNetGenerator
from mmcen.models.generators.cen_unet import DownConv

from .fusion import check_merge, check_places, first_modality
from .learned_per_task import LearnedPerTask, SharingPolicy
from .private_convs import unshare


@MODELS.register_module()
class UnsharedUNet(CENUNetGenerator):
    """Generator whose streams share other parts: the versions of Table 10.

    Args:
        args, kwargs: Arguments of :class:`~mmcen.models.CENUNetGenerator`, of one task.
        norms: ``'private'``, or ``'shared'`` for stock norms of all streams.
        convs: ``'shared'``, or ``'private'`` for a copy of all convolutions for each stream.

    Raises:
        ValueError: If a word is unknown, or convolutions are private with several tasks.
    """

    def __init__(
        self, *args: Any, norms: str = 'private', convs: str = 'shared', **kwargs: Any
    ) -> None:
        for what, word in (('norms', norms), ('convs', convs)):
            if word not in ('private', 'shared'):
                raise ValueError(f"{what} must be 'private' or 'shared', got '{word}'")
        self.norms = norms
        super().__init__(*args, **kwargs)
        if convs == 'private':
            self._check_one_task()
            unshare(self, self.grid)

    def _check_one_task(self) -> None:
        if self.grid.tasks > 1:
            raise ValueError(
                "convs='private', and fusion with merge=True, are for one task: leave them out"
            )

    def _norm(self, width: int, grid: StreamGrid, axis: str, part: Mapping[str, Any]) -> nn.Module:
        if self.norms == 'shared':
            return build_norm_layer(self.norm_cfg, width)[1]
        return super()._norm(width, grid, axis, part)


@MODELS.register_module()
class FusionUNet(UnsharedUNet):
    """Generator with fusion layers after layers of the encoder instead of exchange (Table 4).

    Args:
        fusion: Config of a :class:`~projects.paper.rivals.fusion.Fusion` with ``after``, the layers
            that it follows, numbered 1 to N. With ``merge=True`` streams have private convolutions
            up to the last of them, and one stream continues; skip connections of earlier layers
            are those of the first stream.
        args, kwargs: Arguments of :class:`UnsharedUNet`; the encoder does not exchange.
    """

    def __init__(
        self,
        *args: Any,
        fusion: Mapping[str, Any],
        encoder: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        cfg = dict(fusion)
        self.merge = cfg.get('merge', False)
        check_merge(cfg, kwargs.get('convs', 'shared'))
        encoder = {**(encoder or {}), 'exchange': False}
        super().__init__(*args, encoder=encoder, **kwargs)
        after = check_places(cfg.pop('after', ()), self.downs, 'fusion after layer')
        if self.merge:
            self._check_one_task()
            self._merge_after(after[-1])
        for layer in after:
            norm, conv = self.down_norms[layer - 1], self.down_convs[layer - 1]
            channels = next(m for m in conv.modules() if isinstance(m, nn.Conv2d)).out_channels
            own = dict(cfg, channels=channels, grid=self.grid, last=layer == after[-1])
            followed = OrderedDict(norm=norm, fusion=MODELS.build(own))
            self.down_norms[layer - 1] = nn.Sequential(followed)

    def init_weights(self) -> None:
        """Fusion layers start in a way of their own after ``init_cfg``."""
        super().init_weights()
        for layer in self.down_norms:
            fusion = getattr(layer, 'fusion', None)
            if hasattr(fusion, 'init_weights'):
                fusion.init_weights()

    @property
    def out_grid(self) -> StreamGrid:
        return StreamGrid(self.grid.tasks) if self.merge else self.grid

    def _merge_after(self, layer: int) -> None:
        unshare(self.down_convs[:layer], self.grid)
        for i, norm in enumerate(self.down_norms):
            if i >= layer and isinstance(norm, ExchangeNorm):
                width = norm.num_features
                self.down_norms[i] = self._norm(width, self.out_grid, 'modalities', {})

    def _encode(self, y: Tensor, common: bool = False) -> list[Tensor]:
        features = super()._encode(y, common)
        batch = len(features[-1])
        return [y if len(y) == batch else first_modality(y, self.grid) for y in features]


@MODELS.register_module()
class AdaShareUNet(CENUNetGenerator):
    """Each task learns which of the copies of an encoder layer it uses: AdaShare of Table 8.

    Where AdaShare chooses to run or to skip a residual block, tasks choose which copy of a layer
    they run: the layers of a U-Net change the resolution and cannot be skipped. So AdaShare's
    sparsity loss, on skips, has no place here. One norm serves all streams of an encoder layer.

    Args:
        args, kwargs: Arguments of :class:`~mmcen.models.CENUNetGenerator`.
        copies: Number of copies of each layer of the encoder.
        sharing: Weight of the sharing loss.

    Attributes:
        policy: The choices, a :class:`~projects.paper.rivals.learned_per_task.SharingPolicy`,
            unless the model around the network has taken it over.
    """

    def __init__(self, *args: Any, copies: int = 2, sharing: float = 0.05, **kwargs: Any) -> None:
        self.copies, self.sharing = copies, sharing
        super().__init__(*args, **kwargs)

    def _make_encoder(self, channels: int, widths: list[int], part: Mapping[str, Any]) -> None:
        super()._make_encoder(channels, widths, {'groups': 'shared', 'exchange': False})
        policy = SharingPolicy(len(widths), self.grid.tasks, self.copies, self.sharing)
        for i, width in enumerate(widths):
            self.down_convs[i] = LearnedPerTask(
                lambda c=channels, w=width: DownConv(c, w, 4, 2, 1), self.grid, policy, i
            )
            channels = width
        self.policy: SharingPolicy | None = policy
        self.common = False

    def _norm(self, width: int, grid: StreamGrid, axis: str, part: Mapping[str, Any]) -> nn.Module:
        if axis == 'modalities':
            return build_norm_layer(dict(type='IN2d', affine=True), width)[1]
        return super()._norm(width, grid, axis, part)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.policy is not None:
            self.policy()
        return super().forward(x)
