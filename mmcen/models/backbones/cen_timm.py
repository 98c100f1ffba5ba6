"""CENTIMMBackbone: a network of timm without unused blocks, with frozen statistics."""

from typing import Any

from mmengine.registry import MODELS
from mmseg.models.backbones import TIMMBackbone
from mmseg.models.backbones.timm_backbone import timm
from torch import Tensor, nn


@MODELS.register_module()
class CENTIMMBackbone(TIMMBackbone):
    """TIMMBackbone of mmseg with a rule of exchange and ``norm_eval``.

    In an inverted residual block (EfficientNet, MobileNet) the depthwise convolution is the spatial
    one, like the 3x3 convolution of a ResNet block, so the norm behind it exchanges. For networks
    without depthwise convolutions, set ``exchange=dict(after=...)`` of the model.

    Args:
        model_name: timm's name of a network.
        norm_eval: Keep the running statistics as loaded while training.
        out_indices: Indices of the features in timm. Those of an EfficientNet, 1 to 4, have the
            strides 4, 8, 16, 32; networks with only these four features count from 0.
        kwargs: Other arguments of :class:`mmseg.models.backbones.TIMMBackbone`, and of timm.
            ``init_cfg=dict(type='Pretrained', checkpoint='efficientnet-lite0://')`` loads weights
            of ``tf_efficientnet_lite0``, which pads as TensorFlow does.

    Raises:
        ImportError: If timm is missing.
        ValueError: If the network has no feature of an index.

    Examples:
        >>> import torch, mmcen
        >>> backbone = CENTIMMBackbone('tf_efficientnet_lite0')
        >>> backbone = mmcen.convert(backbone, modalities=2, exchange=backbone.exchange_rule)
        >>> [tuple(x.shape) for x in backbone(torch.rand(2 * 2, 3, 64, 64))]
        [(4, 24, 16, 16), (4, 40, 8, 8), (4, 112, 4, 4), (4, 320, 2, 2)]
    """

    exchange_rule = 'depthwise'
    timm_model: Any

    def __init__(
        self,
        model_name: str,
        *,
        norm_eval: bool = True,
        out_indices: tuple[int, ...] = (1, 2, 3, 4),
        **kwargs: Any,
    ) -> None:
        if timm is None:
            raise ImportError(f"{model_name} is a network of timm's: pip install timm")
        options = {'pretrained': False, 'out_indices': tuple(out_indices), **kwargs}
        try:
            super().__init__(model_name, **options)
        except IndexError as error:
            raise ValueError(
                f'{model_name} does not have all features {list(out_indices)}: set out_indices, '
                'counted from 0, such as (0, 1, 2, 3)'
            ) from error
        if hasattr(self.timm_model, 'blocks'):  # timm keeps blocks behind the last feature
            end = max(self.timm_model.feature_info.get('stage'))
            self.timm_model.blocks = self.timm_model.blocks[:end]
        self.norm_eval = norm_eval

    def train(self, mode: bool = True) -> 'CENTIMMBackbone':
        """Set the mode, but keep batch norms frozen with ``norm_eval``."""
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # the names of timm's own checkpoints do not begin with the attribute
        own = f'{prefix}timm_model.'
        for key in [k for k in state_dict if k.startswith(prefix) and not k.startswith(own)]:
            state_dict[own + key.removeprefix(prefix)] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
