"""Data sets of named modalities, and the transforms that load, move and pack them together."""

from .modalities import ModalitySpec
from .multimodal import MultiModalSegDataset, data_place
from .nyudv2 import NYUv2Dataset
from .synthetic_rooms import SyntheticRooms
from .taskonomy import TaskonomyDataset
from .transforms import (
    EncodeDomains,
    ForEachModality,
    LoadLabel,
    LoadModalities,
    PackModalities,
    RandomScale,
)

__all__ = [
    'EncodeDomains',
    'ForEachModality',
    'LoadLabel',
    'LoadModalities',
    'ModalitySpec',
    'MultiModalSegDataset',
    'NYUv2Dataset',
    'PackModalities',
    'RandomScale',
    'SyntheticRooms',
    'TaskonomyDataset',
    'data_place',
]
