"""Data in folders: a folder and a suffix for each modality, frames matched by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.registry import DATASETS

from .multimodal import MultiModalSegDataset


@DATASETS.register_module()
class RGBDFolderDataset(MultiModalSegDataset):
    """Data set of any number of modalities, each with a folder and a suffix.

    The file of a frame is ``<data_root>/<dir>/<frame><suffix>``, for each modality and for the
    label. Without ``ann_file``, all folders must have the same frames. With it, all listed frames
    must exist, and other files are ignored.

    Args:
        modalities: List of modalities, in the order of the streams, each a dict of the arguments
            of :class:`~mmcen.modalities.ModalitySpec`: ``name``, ``dir``, ``suffix`` and, for
            depth, ``unit``.
        labels: ``dir`` and ``suffix`` of the label maps (class numbers 0..K-1, 255 for void);
            ``None`` if there are none.
        **kwargs: Arguments of :class:`MultiModalSegDataset`, such as ``data_root``, ``ann_file``,
            ``metainfo`` with the ``classes``, ``pipeline`` and ``reduce_zero_label``.

    Raises:
        FileNotFoundError: If a folder, the list or the file of a frame is missing; the first one is
            named.
        ValueError: If there is no list and a file belongs to no frame; the first one is named. Also
            as for :class:`MultiModalSegDataset`.

    Examples:
        >>> dataset = RGBDFolderDataset(
        ...     modalities=[
        ...         dict(name='rgb', dir='rgb', suffix='.jpg'),
        ...         dict(name='depth', dir='depth', unit='mm'),
        ...         dict(name='thermal', dir='thermal', suffix='.npy', kind='raw')],
        ...     data_root='data/mine', lazy_init=True)
        >>> dataset.modalities
        ['rgb', 'depth', 'thermal']
    """

    HOW_TO_GET = (
        'the file of a frame is data_root/dir/FRAME+suffix for each modality and the label, so '
        'check these, and the frames of ann_file if there is one'
    )

    def __init__(
        self,
        modalities: Sequence[Mapping[str, Any]],
        labels: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(modalities=modalities, labels=labels, **kwargs)

    def _check_rest(self, what: str, folder: str, suffixes: Iterable[str], rest: set[str]) -> None:
        rest = {file for file in rest if file.endswith(tuple(suffixes))}
        if self.ann_file or not rest:
            return
        raise ValueError(
            f'{what}: {len(rest)} files belong to no frame of {self.modalities[0]!r}, '
            f'the first is {os.path.join(folder, min(rest))}: remove them, add what is missing, '
            'or list the frames to take in ann_file'
        )
