"""CENTIMMBackbone: a convolutional network of timm with private norms, exchanging behind its
depthwise convolutions.

timm builds the network with its own batch norms; these are replaced by private norms, and what is
not a norm stays as timm made it. In an inverted residual block (EfficientNet, MobileNet) the
depthwise convolution is the one that looks around, as the 3x3 conv of a ResNet block is, so the
norm behind it is the one that exchanges. One-stream checkpoints of timm load into all streams.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from mmseg.models.backbones import TIMMBackbone
from mmseg.models.backbones.timm_backbone import timm
from torch import Tensor, nn

from ...core import exchange_norms
from ...core.grid import AXES, StreamGrid
from ...layers import ExchangeNorm, exchange_only, private_copies
from ...layers.fusion import check_no_exchange, check_places
from .fusing import add_fusion, first_where_apart

NAME = 'timm_model.'  # the parent's attribute, with which its entries in a checkpoint begin


class NormAct(nn.Module):
    """A private norm with what timm's BatchNormAct2d does behind its own: (T*M*B, C, H, W) to
    same."""

    def __init__(self, norm: nn.Module, stock: Any) -> None:
        super().__init__()
        self.norm = norm
        self.drop, self.act = stock.drop, stock.act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(self.norm(x)))

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        for key in [k for k in state_dict if k.startswith(prefix)]:
            if '.' not in (kind := key.removeprefix(prefix)):  # the norm's own, of timm's
                state_dict[f'{prefix}norm.{kind}'] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def norms_after_depthwise(model: nn.Module) -> Iterator[ExchangeNorm]:
    """Norms that directly follow a depthwise convolution, where layers are registered in the order
    of their use, as timm's are."""
    conv = None
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            conv = module
        elif isinstance(module, ExchangeNorm):
            if conv is not None and conv.groups == conv.in_channels > 1:
                yield module
            conv = None


@MODELS.register_module()
class CENTIMMBackbone(TIMMBackbone):
    """A network of timm for streams folded into the batch.

    Args:
        model_name: timm's name of a network with batch norms.
        norm_cfg: config of the private norms, by default CENBN of one stream, as of
            :class:`CENResNet`. They begin as timm's, and keep their ``eps`` and ``momentum`` unless
            it states others.
        norm_eval: keep the running statistics as loaded while training.
        out_indices: which features, by timm's count. Of an EfficientNet 1 to 4 are the strides 4,
            8, 16, 32; a network that has these four alone counts from 0.
        exchange_stages: which stages exchange. A stage, counted from 1, ends at a feature of
            ``out_indices`` and begins behind the one before. None is all.
        fusion: a rival in place of exchange, as of :class:`CENResNet`; ``after`` counts the
            features from 1. This and ``exchange_stages`` are for networks of timm's with
            ``conv_stem`` and ``blocks``.
        init_cfg: such as ``dict(type='Pretrained', checkpoint='efficientnet-lite0://')``, for
            ``tf_efficientnet_lite0``, which pads as TensorFlow does; timm's ``efficientnet_lite0``
            has the same layers and does not.
        kwargs: other arguments of :class:`mmseg.models.backbones.TIMMBackbone`, and of timm.

    Input: ``(T*M*B, 3, H, W)``. Output: features ``(T*M*B, C_i, H/s, W/s)``; of merged streams
    ``(T*B, ...)``.

    Raises:
        ImportError: timm is missing.
        ValueError: no batch norm, a feature or stage that there is not, nothing to exchange behind,
            fusion beside exchange, or stages in a network of another kind.

    Example:
        >>> import torch
        >>> norm_cfg = dict(type='CENBN', modalities=2)
        >>> backbone = CENTIMMBackbone('tf_efficientnet_lite0', norm_cfg=norm_cfg)
        >>> [tuple(x.shape) for x in backbone(torch.rand(2 * 2, 3, 64, 64))]
        [(4, 24, 16, 16), (4, 40, 8, 8), (4, 112, 4, 4), (4, 320, 2, 2)]
    """

    timm_model: Any

    def __init__(
        self,
        model_name: str,
        *,
        norm_cfg: dict | None = None,
        norm_eval: bool = True,
        out_indices: tuple[int, ...] = (1, 2, 3, 4),
        exchange_stages: Sequence[int] | None = None,
        fusion: dict | None = None,
        **kwargs: Any,
    ) -> None:
        if timm is None:
            raise ImportError(f"{model_name} is a network of timm's: pip install timm")
        options = {'pretrained': False, 'out_indices': tuple(out_indices), **kwargs}
        try:
            super().__init__(model_name, **options)
        except IndexError as error:
            raise ValueError(
                f'{model_name} has not all of the features {list(out_indices)}: set out_indices, '
                'counted from 0, such as (0, 1, 2, 3)'
            ) from error
        if hasattr(self.timm_model, 'blocks'):  # timm keeps those behind the last feature
            end = max(self.timm_model.feature_info.get('stage'))
            self.timm_model.blocks = self.timm_model.blocks[:end]
        self.model_name = model_name
        self.norm_cfg = norm_cfg or dict(type='CENBN')
        self.norm_eval = norm_eval
        self.grid = StreamGrid(*(self.norm_cfg.get(axis, 1) for axis in AXES))
        if not self._make_private(self.timm_model):
            raise ValueError(
                f'{model_name} has no batch norm to make private: choose a network with batch norms'
            )
        exchanging = self._restrict_exchange(exchange_stages)
        self.apart: set[int] = set()  # features whose streams merge later
        if fusion is not None:
            check_no_exchange(exchanging)
            self._fuse(fusion)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Features of all stages that are asked for."""
        features = super().forward(x)
        return first_where_apart(features, range(len(features)), self.apart, self.grid)

    def train(self, mode: bool = True) -> 'CENTIMMBackbone':
        """As ever, but with frozen statistics where ``norm_eval`` says so."""
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def _make_private(self, module: nn.Module) -> int:
        """Replace the batch norms below a module; return how many there were."""
        count = 0
        for name, child in list(module.named_children()):
            if not isinstance(child, nn.BatchNorm2d):
                count += self._make_private(child)
                continue
            count += 1
            stock = dict(eps=child.eps, momentum=child.momentum)
            norm = build_norm_layer({**stock, **self.norm_cfg}, child.num_features)[1]
            norm.load_state_dict(child.state_dict(), strict=False)  # pretrained by timm
            setattr(module, name, NormAct(norm, child) if hasattr(child, 'act') else norm)
        return count

    def _restrict_exchange(self, stages: Sequence[int] | None) -> list[ExchangeNorm]:
        """Stop exchange everywhere but behind depthwise convs of these stages; return the norms
        that still exchange."""
        told = any(exchange_norms(self))
        chosen = set(norms_after_depthwise(self))
        if stages is not None:
            all_stages = self._stages()
            places = check_places(stages, len(all_stages), 'exchange in stage')
            blocks = [block for place in places for block in all_stages[place - 1]]
            chosen &= set(nn.ModuleList(blocks).modules())
        exchanging = exchange_only(self, chosen)
        if told and not exchanging:
            where = '' if stages is None else f' in stages {list(stages)}'
            raise ValueError(
                f'{self.model_name} has no depthwise convolution to exchange behind{where}: set '
                'exchange=False in norm_cfg, and then `exchange` of the norms of your choice'
            )
        return exchanging

    def _stages(self) -> list[list[nn.Sequential]]:
        """Blocks up to each feature, from the one before."""
        if not hasattr(self.timm_model, 'blocks'):
            raise ValueError(
                f"{self.model_name} has no 'blocks' to tell stages by: choose an EfficientNet or "
                'MobileNet'
            )
        ends = self.timm_model.feature_info.get('stage')
        if not all(ends):
            raise ValueError(
                f'feature 0 of {self.model_name} is its stem, which is no stage: leave 0 out of '
                'out_indices'
            )
        blocks = list(self.timm_model.blocks)
        return [blocks[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    def _fuse(self, cfg: dict) -> None:
        channels = self.timm_model.feature_info.channels()
        self.apart = add_fusion(self._stages(), channels, self.grid, cfg)
        if cfg.get('merge'):
            stem = private_copies(self.timm_model.conv_stem, self.grid.size)
            self.timm_model.conv_stem = stem

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # timm's own checkpoints name their layers without the attribute
        own = prefix + NAME
        for key in [k for k in state_dict if k.startswith(prefix) and not k.startswith(own)]:
            state_dict[own + key.removeprefix(prefix)] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
