"""Backbones with several streams, converted as a segmentor converts its own."""

from mmcen.core import StreamGrid
from mmcen.models.backbones import CENResNet, CENTIMMBackbone
from mmcen.models.multi_stream import make_multi_stream


def multi_stream(backbone, streams=2, **exchange):
    """Convert a backbone that was built for one stream; ``exchange`` is that of a segmentor."""
    return make_multi_stream(backbone, StreamGrid(1, streams), exchange)


def resnet(depth, streams=2, exchange=None, **settings):
    """A CENResNet of several streams."""
    return multi_stream(CENResNet(depth, **settings), streams, **(exchange or {}))


def timm_backbone(name, streams=2, exchange=None, **settings):
    """A CENTIMMBackbone of several streams."""
    return multi_stream(CENTIMMBackbone(name, **settings), streams, **(exchange or {}))
