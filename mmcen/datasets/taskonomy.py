"""Taskonomy, and any data set with its domains and file names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS
from PIL import Image

from .encodings import CLASSES, ENCODINGS
from .multimodal import MultiModalSegDataset, data_place


@DATASETS.register_module()
class TaskonomyDataset(MultiModalSegDataset):
    """Frames of any of Taskonomy's domains, both inputs and targets.

    Files are ``{domain}/point_{p}_view_{v}_domain_{domain}.png``, or one level deeper if a frame is
    listed as ``{building}/point_{p}_view_{v}``. Samples hold physical units, see
    :mod:`~mmcen.datasets.encodings`; EncodeDomains makes images of them.

    Args:
        modalities: List of domains, by name or as dicts with a name and the differences.
        data_root: Folder of the set; by default ``data/taskonomy``, or ``taskonomy`` below the
            folder that the environment variable ``MMCEN_DATA`` names.
        ann_file: List of frames below it, one a line; by default all frames of the first domain.
        labels: Whether LoadLabel also gives the class map as ``gt_seg_map``.
        folder: Name of the set below ``data`` or ``MMCEN_DATA``.
        check_sizes: Whether to check before training that all domains of a frame have one size.
        kwargs: Arguments of :class:`MultiModalSegDataset`.

    Raises:
        FileNotFoundError: If the list, a folder, or a domain of a frame is missing.
        ValueError: If a domain is unknown, the list is empty, or sizes differ.
    """

    MODALITIES = {name: {'suffix': f'_domain_{name}.png', 'domain': name} for name in ENCODINGS}
    HOW_TO_GET = (
        'download Taskonomy and draw its lists by `mmcen convert-data taskonomy` '
        '(or derive its domains by `mmcen convert-data derive-domains`), and set data_root, or '
        'MMCEN_DATA to the folder that holds it'
    )

    def __init__(
        self,
        modalities: Sequence[Mapping[str, Any] | str] = ('rgb',),
        data_root: str | None = None,
        ann_file: str = '',
        labels: bool = False,
        folder: str = 'taskonomy',
        check_sizes: bool = True,
        **kwargs: Any,
    ) -> None:
        self.check_sizes = check_sizes
        own = {'dir': CLASSES, 'suffix': self.MODALITIES[CLASSES]['suffix']} if labels else None
        super().__init__(
            modalities=modalities,
            labels=own,
            data_root=data_root or data_place(folder),
            ann_file=ann_file,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Find every file of every frame, and compare their sizes."""
        data_list = super().load_data_list()
        if self.check_sizes:
            for info in data_list:
                self._check_sizes(info['modality_paths'])
        return data_list

    def _check_sizes(self, paths: dict[str, str]) -> None:
        sizes = {}
        for name, path in paths.items():
            if Path(path).is_file():  # other file backends are compared when they are read
                with Image.open(path) as image:  # reads the header alone
                    sizes[name] = image.size
        if len(set(sizes.values())) > 1:
            raise ValueError(
                f'the domains of {next(iter(paths.values()))} differ in size (width, height), '
                f'{sizes}: they must be aligned pixel by pixel, so resize them to one'
            )
