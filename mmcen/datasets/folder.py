"""People's own data: a folder and a suffix for each modality, frames matched by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.registry import DATASETS

from .multimodal import MultiModalSegDataset


@DATASETS.register_module()
class RGBDFolderDataset(MultiModalSegDataset):
    """Any number of modalities by folder and suffix.

    The file of a frame is ``<data_root>/<dir>/<frame><suffix>``, for each modality and for the
    label. Without ``ann_file`` the folders must agree: each frame of one is in all. With it, what
    it lists must be there, and other files may.

    Args:
        modalities: List of modalities, in the order of the streams, each a dict of the arguments
            of :class:`~mmcen.modalities.ModalitySpec`: ``name``, ``dir``, ``suffix`` and, for
            depth, ``unit``.
        labels: ``dir`` and ``suffix`` of the label maps (class numbers 0..K-1, 255 for void);
            ``None`` without.
        **kwargs: As for :class:`MultiModalSegDataset`, e.g. ``data_root``, ``ann_file``,
            ``metainfo`` with the ``classes``, ``pipeline``, ``reduce_zero_label``.

    Raises:
        FileNotFoundError: A folder or the list is missing, or the file of a frame: the first is
            named.
        ValueError: A file belongs to no frame, where there is no list: the first is named; and as
            for :class:`MultiModalSegDataset`.

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
