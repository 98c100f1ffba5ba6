"""RGB-D saliency: the four sets of Table 14, and rendered rooms."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mmengine.registry import DATASETS

from .multimodal import MultiModalSegDataset, data_place
from .rooms.scene import LABELS
from .synthetic_rooms import SyntheticRooms

META: dict[str, Any] = {
    'classes': ('background', 'salient object'),
    'palette': [[0, 0, 0], [255, 255, 255]],
}
THINGS = ('box', 'ball', 'pillar')
SUFFIXES = ('.png', '.jpg', '.bmp')


@dataclass(frozen=True)
class SaliencySet:
    """Layout of a set on disk. Files of a frame have the same name except for the suffix.

    Args:
        dirs: Folder of each split, below the data root.
        near: Which stored values are near, ``'low'`` or ``'high'``. Depth maps are 8-bit, stretched
            in each frame, and have no unit.
        counts: Numbers of frames of each split in its editions, the paper's first.
        parts: Folders of colour, depth and masks below that of the split, ``{}`` for its name.
        fit_depth: Whether depth has another size than colour and is resized when it is loaded.
    """

    dirs: Mapping[str, str]
    near: str
    counts: Mapping[str, tuple[int, ...]]
    parts: Mapping[str, str] = field(
        default_factory=lambda: {'rgb': 'RGB', 'depth': 'depth', 'mask': 'GT'}
    )
    fit_depth: bool = False

    def part(self, name: str, split: str) -> str:
        """Return a folder below the data root."""
        return os.path.join(self.dirs[split], self.parts[name].format(split))


# Folders as in the packages of D3Net (NJUD, NLPR, STERE) and DUT-RGBD. Which depth is near: issue 6
# of github.com/jiwei0921/RGBD-SOD-datasets. Some copies are inverted; mmcen convert-data saliency
# checks this.
SETS = {
    'njud': SaliencySet(
        dirs={'train': 'NJU2K_TRAIN', 'test': 'NJU2K_TEST'},
        near='high',
        counts={'train': (1485,), 'test': (500, 485)},
    ),
    'nlpr': SaliencySet(
        dirs={'train': 'NLPR_TRAIN', 'test': 'NLPR_TEST'},
        near='low',
        counts={'train': (700,), 'test': (300,)},
    ),
    'stere': SaliencySet(dirs={'test': 'STERE'}, near='low', counts={'test': (1000, 797)}),
    'dutlf': SaliencySet(
        dirs={'train': 'DUT-RGBD/train_data', 'test': 'DUT-RGBD/test_data'},
        near='low',
        counts={'train': (800,), 'test': (400,)},
        parts={'rgb': '{}_images', 'depth': '{}_depth', 'mask': '{}_masks'},
        fit_depth=True,  # 256x256 beside 400x600 in the usual package
    ),
}


@DATASETS.register_module()
class SaliencyDataset(MultiModalSegDataset):
    """NJUD, NLPR, STERE or DUTLF-Depth: colour, depth, and masks of salient objects.

    A sample starts as one of :class:`MultiModalSegDataset`, with ``dataset`` (the name of the set,
    which is part of metric names), ``near``, and optionally ``pseudo_path``.

    Args:
        name: Name of the set, a key of :data:`SETS`.
        split: ``'train'`` or ``'test'``.
        data_root: Folder of all sets; by default ``data/rgbd_saliency``, or ``rgbd_saliency`` below
            the folder that the environment variable ``MMCEN_DATA`` names.
        ann_file: List of frames below the data root, one name without suffix a line; by default
            all files of the folder.
        masks: Whether masks are needed. Training needs none.
        pseudo: Folder of pseudo labels beside that of the masks, as the tool writes them; None if
            they are made when a frame is loaded.
        near: Which stored values are near, if this copy of the set is inverted.
        count: Expected number of frames, 0 for any number; by default the official one, or any
            number with ``ann_file``.
        kwargs: Arguments of :class:`MultiModalSegDataset`.

    Raises:
        FileNotFoundError: If a folder or a frame's file is missing.
        ValueError: If the set or split is unknown, or the number of frames differs.
    """

    METAINFO = META
    MODALITIES: Mapping[str, dict[str, Any]] = {
        'rgb': {'suffix': SUFFIXES},
        'depth': {'suffix': SUFFIXES, 'kind': 'raw'},
    }
    HOW_TO_GET = (
        'unpack the sets below data/rgbd_saliency, or let MMCEN_DATA name the folder that holds '
        'rgbd_saliency; pseudo labels are written by `mmcen convert-data saliency`'
    )

    def __init__(
        self,
        name: str,
        split: str = 'train',
        data_root: str | None = None,
        ann_file: str = '',
        masks: bool = True,
        pseudo: str | None = None,
        near: str | None = None,
        count: int | None = None,
        **kwargs: Any,
    ) -> None:
        if name not in SETS or split not in SETS[name].dirs:
            known = {key: list(one.dirs) for key, one in SETS.items()}
            raise ValueError(
                f'there is no set {name!r} with split {split!r}: choose one of {known}'
            )
        layout = SETS[name]
        self.name, self.near = name, near or layout.near
        self.counts = layout.counts[split] if count is None and not ann_file else (count,)
        self.pseudo = pseudo and os.path.join(layout.dirs[split], pseudo)
        self.MODALITIES = {
            key: {**spec, 'dir': layout.part(key, split)} for key, spec in self.MODALITIES.items()
        }
        self.MODALITIES['depth']['fit'] = layout.fit_depth
        super().__init__(
            labels={'dir': layout.part('mask', split), 'suffix': SUFFIXES} if masks else None,
            data_root=data_root or data_place('rgbd_saliency'),
            ann_file=ann_file,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Find every file of every frame, and count them."""
        data_list = super().load_data_list()
        if any(self.counts) and len(data_list) not in self.counts:
            raise ValueError(
                f'{self.data_prefix["rgb"]} has {len(data_list)} frames, but {self.name} has '
                f'{" or ".join(map(str, self.counts))}: unpack it again, or give count='
            )
        if self.pseudo:
            folder = os.path.join(self.data_root, self.pseudo)
            files = self._locate('pseudo labels', folder, ('.png',), self._frames())
            for info, path in zip(data_list, files, strict=True):
                info['pseudo_path'] = path
        return data_list

    def get_data_info(self, idx: int) -> dict:
        """Return the files of a frame, and the facts that all frames share."""
        return super().get_data_info(idx) | {'dataset': self.name, 'near': self.near}


@DATASETS.register_module()
class SalientRooms(SyntheticRooms):
    """Rendered rooms in two classes: boxes, balls and pillars are salient, the rest is background.

    Pictures, rugs, cabinets and screens are background that is visible in one modality only.

    Args:
        kwargs: Arguments of :class:`SyntheticRooms`.
    """

    METAINFO = META

    def _mapped(self, labels: np.ndarray) -> np.ndarray:
        return np.isin(labels, [LABELS[name] for name in THINGS]).astype(np.uint8)
