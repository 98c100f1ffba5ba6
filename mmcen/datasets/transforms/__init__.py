"""Load modalities, transform them in the same way, and pack them."""

from .corrupt import CorruptModality
from .encoding import EncodeDomains
from .for_each import ForEachModality
from .formatting import PackModalities
from .hha import DepthToHHA
from .loading import LoadLabel, LoadModalities
from .random_scale import RandomScale
from .random_scale_crop import RandomScaleCrop
from .saliency import LoadMask, LoadPseudoLabel, RelativeDepth

__all__ = [
    'CorruptModality',
    'DepthToHHA',
    'EncodeDomains',
    'ForEachModality',
    'LoadLabel',
    'LoadMask',
    'LoadModalities',
    'LoadPseudoLabel',
    'PackModalities',
    'RandomScale',
    'RandomScaleCrop',
    'RelativeDepth',
]
