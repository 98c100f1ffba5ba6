"""Backbones with a rule of exchange."""

from .cen_resnet import CENResNet
from .cen_timm import CENTIMMBackbone
from .efficientnet_lite import load_from_efficientnet_lite0

__all__ = ['CENResNet', 'CENTIMMBackbone', 'load_from_efficientnet_lite0']
