"""NYU Depth v2 with the 40 classes of Gupta et al. (2013)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
HELD = 5  # one of so many runs of frames is held out


def colour_map(count: int) -> list[list[int]]:
    """Return the colour map of Pascal VOC: the index's bits, spread over red, green and blue.

    Args:
        count: Number of colours, 1 to 256.

    Returns:
        RGB triples in 0..255, all different. Index 0 is black.

    Examples:
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


def hold_out(frames: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split training frames by scene, into those to train on and those to choose settings on.

    Frames are numbered scene by scene, and the official split does not divide scenes, so a run of
    consecutive numbers in a split has complete scenes. The first of every five runs is held out:
    149 of the 795 frames.

    Args:
        frames: Names of frames, which are numbers, in order.

    Returns:
        Frames to train on, and frames held out.

    Raises:
        ValueError: If a name is not a number.

    Examples:
        >>> hold_out(['03', '04', '10', '11'])
        (['10', '11'], ['03', '04'])
    """
    words = [frame for frame in frames if not frame.isdecimal()]
    if words:
        raise ValueError(
            f'frame {words[0]!r} is not a number, so its scene is unknown: use the names of '
            'mmcen convert-data nyuv2, or your own split file as ann_file'
        )
    parts: tuple[list[str], list[str]] = ([], [])
    run, last = -1, None
    for frame in frames:
        run += last is None or int(frame) != last + 1
        last = int(frame)
        parts[run % HELD == 0].append(frame)
    return parts


@DATASETS.register_module()
class NYUv2Dataset(ConvertedDataset):
    """NYUv2: colour, depth and 40 classes at 480x640, 795 frames to train and 654 to test.

    In the label files 0 is void and 1..40 are the classes (``reduce_zero_label=True``: 255 and
    0..39 in a sample). Depth may be stored in 8 bits of 10/255 m, in 16 bits of 1 mm, or as
    float32 in metres. Colour may be JPEG or PNG.

    Args:
        split: ``'train'``, ``'test'``, or, for choosing settings without the test frames, one part
            of the training frames, ``'train_fit'`` or ``'train_hold'`` (see :func:`hold_out`).
        data_root: See :class:`ConvertedDataset`.
        **kwargs: Arguments of :class:`MultiModalSegDataset`.
    """

    METAINFO = {'classes': CLASSES, 'palette': colour_map(41)[1:]}
    PLACE = 'nyuv2'
    SPLITS = ('train', 'test', 'train_fit', 'train_hold')
    MODALITIES = {
        **ConvertedDataset.MODALITIES,
        'depth': {
            'suffix': ('.png', '.npy', '.tiff'),
            'unit': {'uint8': 10 / 255, 'uint16': 'mm', 'float32': 'm'},
        },
    }
    HOW_TO_GET = (
        'make the data set by `mmcen convert-data nyuv2 '
        'nyu_depth_v2_labeled.mat`, which writes data/nyuv2, or let the environment variable '
        'MMCEN_DATA name the folder that holds nyuv2'
    )

    def __init__(self, split: str = 'train', data_root: str | None = None, **kwargs: Any) -> None:
        whole, _, self.part = split.partition('_') if split in self.SPLITS else (split, '', '')
        super().__init__(whole, data_root, **kwargs)

    def _frames(self) -> list[str]:
        frames = super()._frames()
        if not self.part:
            return frames
        fit, held = hold_out(frames)
        return held if self.part == 'hold' else fit
