"""Segmentors with several streams."""

from .cen_encoder_decoder import CENEncoderDecoder
from .cen_saliency import CENSaliency
from .cen_tta import CENSegTTAModel

__all__ = ['CENEncoderDecoder', 'CENSaliency', 'CENSegTTAModel']
