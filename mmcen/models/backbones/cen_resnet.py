"""CENResNet: mmseg's ResNet whose norms behind 3x3 convolutions exchange (section 3.2)."""

from typing import Any

from mmengine.registry import MODELS
from mmseg.models.backbones import ResNet
from mmseg.models.backbones.resnet import BasicBlock, Bottleneck
from torch import nn


@MODELS.register_module()
class CENResNet(ResNet):
    """ResNet that says which of its norms exchange once it is multi-stream.

    :class:`CENEncoderDecoder` makes it multi-stream, as any backbone. By hand, that is
    ``mmcen.convert(backbone, modalities=2, exchange=backbone.exchange_rule)``. As in the official
    code only norms inside the blocks exchange: norm2 of a Bottleneck, both norms of a BasicBlock.

    Args:
        depth: 18, 34, 50, 101 or 152.
        norm_eval: Keep the running statistics as loaded while training, the paper's default with
            ImageNet weights. Set it to False to train from scratch.
        zero_init_residual: Start each block as the identity, by a zero gamma in its last norm. None
            does so where that norm does not exchange: in Bottlenecks.
        kwargs: Other arguments of :class:`mmseg.models.backbones.ResNet`.

    Raises:
        ValueError: If ``zero_init_residual=True`` would start exchanging norms at gamma 0.

    Examples:
        >>> import torch, mmcen
        >>> backbone = CENResNet(18)
        >>> rule = backbone.exchange_rule
        >>> backbone = mmcen.convert(backbone, modalities=2, exchange=rule)
        >>> [tuple(x.shape) for x in backbone(torch.rand(2 * 3, 3, 64, 64))]
        [(6, 64, 16, 16), (6, 128, 8, 8), (6, 256, 4, 4), (6, 512, 2, 2)]
    """

    def __init__(
        self,
        depth: int,
        *,
        norm_eval: bool = True,
        zero_init_residual: bool | None = None,
        **kwargs: Any,
    ) -> None:
        if zero_init_residual is None:
            zero_init_residual = self.arch_settings.get(depth, (None,))[0] is Bottleneck
        super().__init__(
            depth, norm_eval=norm_eval, zero_init_residual=zero_init_residual, **kwargs
        )
        if zero_init_residual and self.block is BasicBlock:
            raise ValueError(
                f'zero_init_residual=True starts every norm2 of ResNet-{depth} at gamma 0, below '
                'the exchange threshold, so that whole sub-parts are exchanged from the first '
                'step: set it to False'
            )

    def exchange_rule(self, name: str, norm: nn.Module, producer: nn.Module | None) -> bool:
        """Whether a norm exchanges: behind a 3x3 convolution of a block.

        Args:
            name: Name of the norm, such as ``'layer1.0.bn2'``.
            norm: The norm.
            producer: The layer whose output it takes.
        """
        in_block = name.partition('.')[0] in self.res_layers
        return in_block and getattr(producer, 'kernel_size', None) == (3, 3)
