"""Rendered indoor scenes with every domain of Taskonomy: a data set that needs no download."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.registry import DATASETS
from mmseg.datasets import BaseSegDataset

from ..modalities import NUMBERS, read_specs
from .rooms.scene import CLASSES
from .rooms.sensor import Sensor
from .rooms.shot import ALIASES, DOMAINS, Shot

PALETTE = [
    [174, 199, 232],
    [152, 110, 82],
    [230, 230, 230],
    [255, 127, 14],
    [214, 39, 40],
    [44, 160, 44],
    [148, 103, 189],
    [227, 119, 194],
    [31, 119, 180],
    [188, 189, 34],
]
SPLITS = ('train', 'val', 'test')
DECLARED = {name: {'domain': name} for name in (*DOMAINS, *ALIASES)}


@DATASETS.register_module()
class SyntheticRooms(BaseSegDataset):
    """Indoor scenes that are rendered from their number; no files are needed.

    There are ten classes. Pictures and rugs are visible in colour only, cabinets in depth only. A
    screen looks like a picture and protrudes like a cabinet, so only both modalities together
    separate the four. See ``rooms.scene``.

    A sample holds ``modalities`` (name to (H, W, C), in the order of the argument), ``gt_seg_map``
    (H, W) uint8 and the usual keys. The pipeline needs no loading.

    Args:
        modalities: List of Taskonomy's domains, by name or as dicts of the arguments of
            :class:`~mmcen.modalities.ModalitySpec`, of which those about files have no effect;
            ``rooms.shot`` gives their units and ranges. 'depth' is short for 'depth_zbuffer'.
        size: (H, W) of the frames.
        length: Number of scenes.
        seed: Seed of the scenes.
        split: 'train', 'val' or 'test'; they share no scene at any length.
        sensor: Imperfections of colour and depth: True for the defaults, False for none, or
            settings of ``rooms.sensor.Sensor``.
        cache_mb: Memory for rendered frames in each process, in MB; 0 keeps none. Data loader
            workers have their own cache, which lasts with ``persistent_workers``. A frame of
            colour, depth and labels at 96 x 128 takes 0.1 MB.
        **kwargs: Arguments of mmseg's BaseSegDataset; those about files have no effect.

    Raises:
        ValueError: If a modality is unknown or repeated, the split is unknown, or a size or length
            is below 1.
        TypeError: If ``modalities`` is not a list.
    """

    METAINFO = {'classes': CLASSES, 'palette': PALETTE}

    def __init__(
        self,
        modalities: Sequence[Mapping[str, Any] | str] = ('rgb', 'depth'),
        size: Sequence[int] = (96, 128),
        length: int = 200,
        seed: int = 0,
        split: str = 'train',
        sensor: bool | dict = True,
        cache_mb: float = 256,
        **kwargs: Any,
    ) -> None:
        specs = read_specs(modalities, DECLARED, keys=('domain', *NUMBERS))
        unknown = [spec.name for spec in specs if spec.name not in DECLARED]
        if unknown:
            raise ValueError(f'modality {unknown[0]!r} is unknown: choose one of {list(DECLARED)}')
        if split not in SPLITS:
            raise ValueError(f'split must be one of {", ".join(SPLITS)}, got {split!r}')
        if len(size) != 2 or min(size) < 1 or length < 1:
            raise ValueError(f'size (H, W) and length must be positive, got {size}, {length}')
        self.modalities = [spec.name for spec in specs]
        self.modality_info = {spec.name: spec for spec in specs}
        self.size = (int(size[0]), int(size[1]))
        self.length, self.seed, self.split = length, seed, split
        settings = sensor if isinstance(sensor, dict) else {}
        self.sensor = None if sensor is False else Sensor(**settings)
        self._cache: dict[int, dict[str, np.ndarray]] = {}
        self._room_left = cache_mb * 2**20
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Return an entry for each scene; ``scene`` is the number that it is rendered from."""
        return [
            {
                'img_path': f'synthetic_rooms/{self.split}/{index:06d}',
                # interleaved, so that splits stay disjoint at any length
                'scene': index * len(SPLITS) + SPLITS.index(self.split),
                'label_map': self.label_map,
                'reduce_zero_label': self.reduce_zero_label,
                'seg_fields': ['gt_seg_map'],
            }
            for index in range(self.length)
        ]

    def prepare_data(self, idx: int) -> dict | None:
        """Render the scene, then run the pipeline."""
        results = self.get_data_info(idx)
        domain = dict(self._render(results.pop('scene')))
        labels = domain.pop('segment_semantic')
        results['gt_seg_map'] = labels[..., 0].copy()
        # copies: a transform may write into its input, the cache must not change
        results['modalities'] = {
            name: (labels if name == 'segment_semantic' else domain[name]).copy()
            for name in self.modalities
        }
        results['img_shape'] = results['ori_shape'] = self.size
        results['modality_info'] = self.modality_info
        results['palette'] = self.metainfo['palette']
        return self.pipeline(results)

    def _render(self, scene: int) -> dict[str, np.ndarray]:
        """Return all modalities and the class map of a scene, from the cache if possible."""
        if scene in self._cache:
            return self._cache[scene]
        shot = Shot((self.seed, scene), self.size, self.sensor)
        rendered = {name: DOMAINS[ALIASES.get(name, name)](shot) for name in self.modalities}
        rendered['segment_semantic'] = self._mapped(DOMAINS['segment_semantic'](shot))
        volume = sum(array.nbytes for array in rendered.values())
        if volume <= self._room_left:
            self._room_left -= volume
            self._cache[scene] = rendered
        return rendered

    def _mapped(self, labels: np.ndarray) -> np.ndarray:
        """Map labels to ``metainfo=dict(classes=...)``, as mmseg's LoadAnnotations does."""
        if self.label_map is None:
            return labels
        table = np.arange(256, dtype=np.uint8)
        table[list(self.label_map)] = list(self.label_map.values())
        return table[labels]
