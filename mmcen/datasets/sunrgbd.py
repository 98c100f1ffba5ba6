"""SUN RGB-D with the 37 classes of its toolbox (Song et al., 2015)."""

from __future__ import annotations

from mmengine.registry import DATASETS

from .converted import ConvertedDataset
from .nyuv2 import colour_map

# The spelling is that of the toolbox's ``seg37list``.
CLASSES = (
    'wall', 'floor', 'cabinet', 'bed', 'chair', 'sofa', 'table', 'door', 'window', 'bookshelf',
    'picture', 'counter', 'blinds', 'desk', 'shelves', 'curtain', 'dresser', 'pillow', 'mirror',
    'floor_mat', 'clothes', 'ceiling', 'books', 'fridge', 'tv', 'paper', 'towel',
    'shower_curtain', 'box', 'whiteboard', 'person', 'night_stand', 'toilet', 'sink', 'lamp',
    'bathtub', 'bag',
)  # fmt: skip


@DATASETS.register_module()
class SUNRGBDDataset(ConvertedDataset):
    """SUN RGB-D: colour, depth and 37 classes, 5,285 frames to train and 5,050 to test.

    Frames are as large as their camera's: 427x561, 441x591, 530x730 or 531x681. In the label files
    0 is void and 1..37 are the classes (255 and 0..36 in a sample). Depth is in metres, up to 8.

    Arguments are those of :class:`ConvertedDataset`; splits are ``'train'`` and ``'test'``.
    """

    METAINFO = {'classes': CLASSES, 'palette': colour_map(38)[1:]}
    PLACE = 'sunrgbd'
    HOW_TO_GET = (
        'make the data set by `mmcen convert-data sunrgbd FOLDER`, which writes '
        'data/sunrgbd, or let the environment variable MMCEN_DATA name the folder that holds '
        'sunrgbd'
    )
