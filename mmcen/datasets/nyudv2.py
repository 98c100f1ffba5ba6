"""NYU Depth v2 with the 40 classes of Gupta et al. (2013)."""

from __future__ import annotations

from mmengine.registry import DATASETS

from .converted import ConvertedDataset

# The spelling is that of the official ``classMapping40.mat``.
CLASSES = (
    'wall', 'floor', 'cabinet', 'bed', 'chair', 'sofa', 'table', 'door', 'window', 'bookshelf',
    'picture', 'counter', 'blinds', 'desk', 'shelves', 'curtain', 'dresser', 'pillow', 'mirror',
    'floor mat', 'clothes', 'ceiling', 'books', 'refridgerator', 'television', 'paper', 'towel',
    'shower curtain', 'box', 'whiteboard', 'person', 'night stand', 'toilet', 'sink', 'lamp',
    'bathtub', 'bag', 'otherstructure', 'otherfurniture', 'otherprop',
)  # fmt: skip


def colour_map(count: int) -> list[list[int]]:
    """The colour map of Pascal VOC: the bits of the index, spread over red, green and blue.

    Args:
        count: number of colours, 1 to 256.

    Returns:
        RGB triples in 0..255, all different. Index 0 is black.

    Example:
        >>> colour_map(4)
        [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    """
    return [
        [
            sum((index >> (3 * place + channel) & 1) << (7 - place) for place in range(3))
            for channel in range(3)
        ]
        for index in range(count)
    ]


@DATASETS.register_module()
class NYUv2Dataset(ConvertedDataset):
    """NYUv2: colour, depth and 40 classes at 480x640, 795 frames to train and 654 to test.

    In the label files 0 is void and 1..40 are the classes (``reduce_zero_label=True``: 255 and
    0..39 in a sample). Depth may be stored in 8 bits of 10/255 m, in 16 bits of 1 mm, or as
    float32 in metres. Colour may be JPEG or PNG.

    Args: as for :class:`ConvertedDataset`; splits are ``'train'`` and ``'test'``.
    """

    METAINFO = {'classes': CLASSES, 'palette': colour_map(41)[1:]}
    PLACES = ('nyudv2', 'nyuv2')
    MODALITIES = {
        **ConvertedDataset.MODALITIES,
        'depth': {
            'dir': 'depth',
            'suffix': ('.png', '.npy', '.tiff'),
            'kind': 'depth',
            'metres_per_unit': {'uint8': 10 / 255, 'uint16': 0.001, 'float32': 1.0},
        },
    }
    HOW_TO_GET = (
        'make the data set by `python tools/dataset_converters/nyudv2.py '
        'nyu_depth_v2_labeled.mat`, which writes data/nyudv2, or let the environment variable '
        'MMCEN_DATA name the folder that holds nyudv2'
    )
