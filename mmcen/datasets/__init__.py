"""Data sets of named modalities, and the transforms that load, move and pack them together."""

from .cityscapes_rgbd import CityscapesRGBDDataset
from .converted import ConvertedDataset
from .folder import RGBDFolderDataset
from .multimodal import MultiModalSegDataset, data_place
from .nyuv2 import NYUv2Dataset
from .saliency import SaliencyDataset, SalientRooms
from .sunrgbd import SUNRGBDDataset
from .synthetic_rooms import SyntheticRooms
from .taskonomy import TaskonomyDataset
from .transforms import (
    CorruptModality,
    DepthToHHA,
    EncodeDomains,
    ForEachModality,
    LoadLabel,
    LoadMask,
    LoadModalities,
    LoadPseudoLabel,
    PackModalities,
    RandomScale,
    RandomScaleCrop,
    RelativeDepth,
)

__all__ = [
    'CityscapesRGBDDataset',
    'ConvertedDataset',
    'CorruptModality',
    'DepthToHHA',
    'EncodeDomains',
    'ForEachModality',
    'LoadLabel',
    'LoadMask',
    'LoadModalities',
    'LoadPseudoLabel',
    'MultiModalSegDataset',
    'NYUv2Dataset',
    'PackModalities',
    'RGBDFolderDataset',
    'RandomScale',
    'RandomScaleCrop',
    'RelativeDepth',
    'SUNRGBDDataset',
    'SaliencyDataset',
    'SalientRooms',
    'SyntheticRooms',
    'TaskonomyDataset',
    'data_place',
]
