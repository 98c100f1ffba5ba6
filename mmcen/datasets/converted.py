"""Data sets that the converters of :mod:`mmcen.converters` write."""

from __future__ import annotations

from typing import Any, ClassVar

from .multimodal import MultiModalSegDataset, data_place


class ConvertedDataset(MultiModalSegDataset):
    """Data set of a converter: ``splits/{split}.txt``, ``masks/``, and a folder per modality.

    A subclass defines ``METAINFO``, ``PLACE``, ``HOW_TO_GET`` and its differences.

    Args:
        split: One of ``SPLITS``.
        data_root: Folder of the set; by default ``data/<PLACE>``, or ``PLACE`` below the folder
            that the environment variable ``MMCEN_DATA`` names.
        **kwargs: Arguments of :class:`MultiModalSegDataset`.

    Raises:
        ValueError: If the split is unknown.
        FileNotFoundError: If the set does not exist when its frames are listed.
    """

    PLACE: ClassVar[str]
    SPLITS: ClassVar[tuple[str, ...]] = ('train', 'test')
    ZERO_IS_VOID: ClassVar[bool] = True  # in the label maps; else 255 is
    MODALITIES = {
        'rgb': {'suffix': ('.png', '.jpg')},
        'depth': {'unit': {'uint16': 'mm'}},
    }

    def __init__(self, split: str = 'train', data_root: str | None = None, **kwargs: Any) -> None:
        if split not in self.SPLITS:
            raise ValueError(
                f'{type(self).__name__} has no split {split!r}: choose one of {list(self.SPLITS)}'
            )
        defaults: dict[str, Any] = {
            'data_root': data_root or data_place(self.PLACE),
            'ann_file': f'splits/{split}.txt',
            'labels': {'dir': 'masks', 'suffix': '.png'},
            'reduce_zero_label': self.ZERO_IS_VOID,
        }
        super().__init__(**(defaults | kwargs))
