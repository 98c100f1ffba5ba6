"""Segmentation data sets with a folder for each modality."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine import fileio
from mmengine.dataset import force_full_init
from mmengine.registry import DATASETS
from mmseg.datasets import BaseSegDataset

from ..modalities import ModalitySpec, read_specs
from .cache import open_cache
from .encodings import encoding_of

DATA_VARIABLE = 'MMCEN_DATA'


def data_place(name: str) -> str:
    """Find the folder of a data set.

    Without the environment variable ``MMCEN_DATA`` it is ``data/<name>``. Otherwise the variable is
    a folder that has the set as a subfolder of this name, or the set itself, with a folder
    ``splits``.
    """
    root = os.environ.get(DATA_VARIABLE)
    if not root:
        return os.path.join('data', name)
    below = os.path.join(root, name)
    return root if not Path(below).is_dir() and Path(root, 'splits').is_dir() else below


@DATASETS.register_module()
class MultiModalSegDataset(BaseSegDataset):
    """Frames of named modalities, one folder each, with a label map.

    A sample starts with ``modality_paths`` (file of each modality, in stream order),
    ``modality_info`` (:class:`~mmcen.modalities.ModalitySpec` of each), ``known_modalities`` (all
    declared ones), ``img_path`` (file of the first modality), ``seg_map_path``, ``num_classes``,
    and mmseg's own keys. All files are searched when the list is made, so a missing file is
    reported before the training.

    Args:
        modalities: List of modalities, in the order of the streams: dicts of the arguments of
            :class:`~mmcen.modalities.ModalitySpec`, or names that the class declares. A dict
            with a declared name states the differences. Default: all declared modalities.
        labels: Folder and suffix, or suffixes, of the label maps; ``None`` if there are none.
        cache: Keep decoded files: ``'memory'`` (or True) in shared memory until the process
            ends, or permanently in the path of an existing folder. Worker processes share them.
            See :mod:`mmcen.datasets.cache`.
        **kwargs: Arguments of mmseg's ``BaseSegDataset``. ``ann_file`` lists one frame name a line,
            without suffix; without it every file of the first modality is a frame.

    Raises:
        FileNotFoundError: If the split file, a folder, a frame's file or the cache is missing.
        ValueError: If a modality is unknown, a split is empty, or a frame is listed twice.

    Examples:
        >>> dataset = MultiModalSegDataset(
        ...     modalities=[dict(name='rgb', dir='rgb', suffix='.jpg'),
        ...                 dict(name='depth', dir='depth', unit='mm')],
        ...     labels=dict(dir='masks', suffix='.png'), metainfo=dict(classes=('a', 'b')),
        ...     lazy_init=True)
        >>> dataset.modalities
        ['rgb', 'depth']
    """

    MODALITIES: Mapping[str, Mapping[str, Any]] = {}
    HOW_TO_GET = 'check data_root, ann_file and the folders of the modalities'

    def __init__(
        self,
        modalities: Sequence[Mapping[str, Any] | str] | None = None,
        labels: Mapping[str, Any] | None = {'dir': 'labels', 'suffix': '.png'},
        cache: bool | str | None = None,
        **kwargs: Any,
    ) -> None:
        self.cache = open_cache(cache)
        specs = self._read_specs(modalities)
        self.modalities = [spec.name for spec in specs]
        self.known_modalities = list(dict.fromkeys([*self.MODALITIES, *self.modalities]))
        self.modality_info = {spec.name: spec for spec in specs}
        prefix = {spec.name: spec.dir for spec in specs}
        if labels is not None:
            prefix['seg_map_path'] = labels['dir']
            kwargs['seg_map_suffix'] = labels['suffix']
        super().__init__(data_prefix=prefix, **kwargs)

    def _read_specs(self, modalities: Any) -> list[ModalitySpec]:
        specs = read_specs(modalities, self.MODALITIES)
        for spec in specs:
            if spec.kind == 'domain':
                encoding_of(spec.domain)
        return specs

    @property
    def num_classes(self) -> int | None:
        """Number of classes K in the label files, including those that the config drops."""
        source = self._metainfo if self.label_map is None else self.METAINFO
        return len(source['classes']) if 'classes' in source else None

    def load_data_list(self) -> list[dict]:
        """Find every file of every frame."""
        frames = self._frames()
        columns = {
            name: self._locate(f'modality {name!r}', self.data_prefix[name], spec.suffix, frames)
            for name, spec in self.modality_info.items()
        }
        paths = [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
        data_list = [
            {'img_path': next(iter(of_frame.values())), 'modality_paths': of_frame}
            for of_frame in paths
        ]
        if 'seg_map_path' in self.data_prefix:
            folder, suffix = self.data_prefix['seg_map_path'], self.seg_map_suffix
            suffixes = (suffix,) if isinstance(suffix, str) else tuple(suffix)
            masks = self._locate('labels', folder, suffixes, frames)
            for info, path in zip(data_list, masks, strict=True):
                info['seg_map_path'] = path
        return data_list

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Return the files of a frame, and the facts that all frames share."""
        shared = {
            'modality_info': self.modality_info,
            'known_modalities': self.known_modalities,
            'num_classes': self.num_classes,
            'label_map': self.label_map,
            'palette': self._metainfo.get('palette'),
            'reduce_zero_label': self.reduce_zero_label,
            'seg_fields': [],
            **({} if self.cache is None else {'cache': self.cache}),
        }
        return super().get_data_info(idx) | shared

    def _frames(self) -> list[str]:
        """Return names of the frames, from the split file or else the first modality's folder."""
        if not self.ann_file:
            name, spec = next(iter(self.modality_info.items()))
            found = self._list(f'modality {name!r}', self.data_prefix[name])
            frames = sorted(
                file.removesuffix(suffix)
                for file in found
                for suffix in spec.suffix
                if file.endswith(suffix)
            )
            source = f'{self.data_prefix[name]}/*{"|".join(spec.suffix)}{_glimpse(found)}'
        else:
            source = self.ann_file
            if not fileio.exists(source, backend_args=self.backend_args):
                raise FileNotFoundError(f'there is no split file {source}: {self.HOW_TO_GET}')
            frames = read_lines(fileio.get(source, backend_args=self.backend_args), source)
        if not frames:
            raise ValueError(f'{source} gives no frame: {self.HOW_TO_GET}')
        if len(set(frames)) < len(frames):
            twice = next(frame for frame in frames if frames.count(frame) > 1)
            raise ValueError(f'{source} lists frame {twice!r} twice: list each frame once')
        return frames

    def _list(self, what: str, folder: str) -> set[str]:
        if not fileio.isdir(folder, backend_args=self.backend_args):
            raise FileNotFoundError(f'{what}: there is no folder {folder}: {self.HOW_TO_GET}')
        return set(
            fileio.list_dir_or_file(
                folder, list_dir=False, recursive=True, backend_args=self.backend_args
            )
        )

    def _locate(
        self, what: str, folder: str, suffixes: Iterable[str], frames: list[str]
    ) -> list[str]:
        """Return one existing file in ``folder`` for each frame."""
        there = self._list(what, folder)
        files = [next((f + s for s in suffixes if f + s in there), None) for f in frames]
        missing = [frame for frame, file in zip(frames, files, strict=True) if file is None]
        if missing:
            first = os.path.join(folder, missing[0] + '|'.join(suffixes))
            first += _glimpse(there) if len(missing) == len(frames) else ''
            raise FileNotFoundError(
                f'{what}: {len(missing)} of {len(frames)} files are missing, the first is '
                f'{first}: {self.HOW_TO_GET}'
            )
        self._check_rest(what, folder, suffixes, there.difference(files))
        return [fileio.join_path(folder, str(file)) for file in files]

    def _check_rest(self, what: str, folder: str, suffixes: Iterable[str], rest: set[str]) -> None:
        """Check files that belong to no frame; subclasses may reject them."""


def read_lines(data: bytes, source: str) -> list[str]:
    """Read a list with one name a line; white space around names and empty lines are left out.

    Args:
        data: The file: UTF-8, or UTF-16 with its mark.
        source: Name of the file, for errors.

    Raises:
        ValueError: It is in another encoding.
    """
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode('utf-16' if marked else 'utf-8-sig')
        if '\0' in text:
            raise ValueError('it has zero bytes')
    except ValueError as error:
        raise ValueError(
            f'{source} is no list in UTF-8, or UTF-16 with its mark ({error}): save it as UTF-8'
        ) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _glimpse(files: Iterable[str]) -> str:
    """Return the name of one of the files, for an error."""
    first = min(files, default=None)
    return ' (the folder is empty)' if first is None else f' (there is {first})'
