"""CENResNet: mmseg's ResNet with private norms, exchanging after its 3x3 convs (section 3.2).

The layers are the parent's; two things are added. ``norm_cfg`` makes every norm private to its
stream, and of these only the norms that follow a 3x3 conv inside a block keep exchanging: norm2 of
a Bottleneck (the official code), both norms of a BasicBlock. One-stream checkpoints (ImageNet,
torchvision's names) load into all streams by mmengine's ``init_cfg=dict(type='Pretrained', ...)``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.registry import MODELS
from mmseg.models.backbones import ResNet
from mmseg.models.backbones.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from ...core.grid import AXES, StreamGrid
from ...layers import ExchangeNorm, exchange_only, private_copies, unshare
from ...layers.fusion import check_no_exchange, check_places
from .fusing import add_fusion, first_where_apart


def norms_after_3x3(block: BasicBlock | Bottleneck) -> Iterator[nn.Module]:
    """Norms of a residual block that directly follow one of its 3x3 convs."""
    for i in (1, 2, 3):
        conv = getattr(block, f'conv{i}', None)
        if conv is not None and conv.kernel_size == (3, 3):
            yield getattr(block, f'norm{i}')


@MODELS.register_module()
class CENResNet(ResNet):
    """ResNet for streams folded into the batch.

    Args:
        depth: 18, 34, 50, 101 or 152.
        norm_cfg: config of the private norms, by default CENBN of one stream. ``modalities`` in it
            is the number of streams; ``exchange=False`` makes a baseline that never exchanges.
        norm_eval: keep the running statistics as loaded while training, the paper's default with
            ImageNet weights. Set it to False to train from scratch.
        zero_init_residual: start each block as the identity, by a zero gamma in its last norm. None
            does so where that norm does not exchange: in Bottlenecks.
        exchange_stages: the stages that exchange, of 1 to 4; None is all.
        fusion: a rival in place of exchange (Table 2): config of a
            :class:`~mmcen.layers.fusion.Fusion` with ``after``, the stages that it follows, of 1 to
            4. With ``merge=True`` streams have convolutions of their own up to the last of them,
            and one stream goes on; features of earlier stages are the first stream's.
        kwargs: other arguments of :class:`mmseg.models.backbones.ResNet`.

    Input: ``(T*M*B, 3, H, W)``. Output: features ``(T*M*B, C_i, H/s, W/s)``, s = 4, 8, 16, 32; of
    merged streams ``(T*B, ...)``.

    Raises:
        ValueError: if ``zero_init_residual=True`` would start exchanging norms at gamma 0; fusion
            beside exchange; exchange in or fusion after a stage that there is not.

    Example:
        >>> import torch
        >>> backbone = CENResNet(18, norm_cfg=dict(type='CENBN', modalities=2))
        >>> [tuple(x.shape) for x in backbone(torch.rand(2 * 3, 3, 64, 64))]
        [(6, 64, 16, 16), (6, 128, 8, 8), (6, 256, 4, 4), (6, 512, 2, 2)]
    """

    conv1: Any

    def __init__(
        self,
        depth: int,
        *,
        norm_cfg: dict | None = None,
        norm_eval: bool = True,
        zero_init_residual: bool | None = None,
        exchange_stages: Sequence[int] | None = None,
        fusion: dict | None = None,
        **kwargs: Any,
    ) -> None:
        if zero_init_residual is None:
            zero_init_residual = self.arch_settings.get(depth, (None,))[0] is Bottleneck
        super().__init__(
            depth,
            norm_cfg=norm_cfg or dict(type='CENBN'),
            norm_eval=norm_eval,
            zero_init_residual=zero_init_residual,
            **kwargs,
        )
        exchanging = self._restrict_exchange(exchange_stages)
        if zero_init_residual and exchanging and self.block is BasicBlock:
            raise ValueError(
                f'zero_init_residual=True starts every norm2 of ResNet-{depth} at gamma 0, below '
                'the exchange threshold, so that whole sub-parts are exchanged from the first '
                'step: set it to False'
            )
        self.grid = StreamGrid(*(self.norm_cfg.get(axis, 1) for axis in AXES))
        self.apart: set[int] = set()  # stages whose output has streams that merge later
        if fusion is not None:
            check_no_exchange(exchanging)
            self._fuse(fusion)

    def _fuse(self, cfg: dict) -> None:
        stages = [[getattr(self, name)] for name in self.res_layers]
        channels = [self.feat_dim >> i for i in reversed(range(self.num_stages))]
        self.apart = add_fusion(stages, channels, self.grid, cfg)
        if cfg.get('merge') and self.deep_stem:
            unshare(self.stem, self.grid.size)
        elif cfg.get('merge'):
            self.conv1 = private_copies(self.conv1, self.grid.size)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Features of all stages that are asked for."""
        return first_where_apart(super().forward(x), self.out_indices, self.apart, self.grid)

    def _restrict_exchange(self, stages: Sequence[int] | None) -> list[ExchangeNorm]:
        """Stop exchange everywhere but after 3x3 convs of these stages; return the norms that still
        exchange."""
        layers = [getattr(self, name) for name in self.res_layers]
        if stages is not None:
            places = check_places(stages, self.num_stages, 'exchange in stage')
            layers = [layers[place - 1] for place in places]
        blocks = [block for layer in layers for block in layer]
        chosen = {norm for block in blocks for norm in norms_after_3x3(block)}
        return exchange_only(self, chosen)
