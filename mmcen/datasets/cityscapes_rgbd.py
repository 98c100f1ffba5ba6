"""Cityscapes with disparity instead of depth (Cordts et al., 2016)."""

from __future__ import annotations

from mmengine.registry import DATASETS
from mmseg.datasets import CityscapesDataset

from .converted import ConvertedDataset


@DATASETS.register_module()
class CityscapesRGBDDataset(ConvertedDataset):
    """Cityscapes: colour, disparity and 19 classes at 1024x2048, 2,975 frames to train, 500 to val.

    The modality ``depth`` is the official disparity in pixels, (value - 1) / 256, at most 128. It
    is proportional to the inverse of depth, and 0 where it is invalid. Label files have the classes
    0..18, and 255 for void.

    Arguments are those of :class:`ConvertedDataset`; splits are ``'train'`` and ``'val'``.
    """

    METAINFO = CityscapesDataset.METAINFO
    PLACE = 'cityscapes_rgbd'
    SPLITS = ('train', 'val')
    ZERO_IS_VOID = False
    MODALITIES = {
        **ConvertedDataset.MODALITIES,
        # pixels, not metres; the converter has subtracted the 1
        'depth': {'dir': 'disparity', 'unit': {'uint16': 1 / 256}},
    }
    HOW_TO_GET = (
        'make the data set by `mmcen convert-data cityscapes FOLDER`, which '
        'writes data/cityscapes_rgbd, or let the environment variable MMCEN_DATA name the folder '
        'that holds cityscapes_rgbd'
    )
