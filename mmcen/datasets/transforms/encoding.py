"""Convert physical units to the images that translation models take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

from ..encodings import CLASSES, paint, to_image
from ..nyuv2 import colour_map


@TRANSFORMS.register_module()
class EncodeDomains(BaseTransform):
    """Convert every domain of a sample to three channels of 0..255, float32.

    This is the encoding of the official code. Put it after the geometric transforms and before
    PackModalities. The class map is painted: "SemSeg" in the paper's tables is a translated image
    of it.

    Args:
        limits: Physical values of each domain that become 0 and 255, linearly; by default those of
            :data:`~mmcen.datasets.encodings.ENCODINGS`, with logarithmic depth.
        palette: Colours of the classes, RGB; default the dataset's, or Pascal VOC's.

    Raises:
        ValueError: If a domain is unknown, or limits are not ascending.

    Examples:
        >>> sample = dict(modalities=dict(reshading=np.full((2, 2, 1), 0.2, np.float32)))
        >>> EncodeDomains()(sample)['modalities']['reshading'][0, 0]
        array([51., 51., 51.], dtype=float32)
    """

    def __init__(
        self,
        limits: Mapping[str, tuple[float, float]] | None = None,
        palette: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.limits = dict(limits or {})
        for domain, (low, high) in self.limits.items():
            if not low < high:
                raise ValueError(f"limits of '{domain}' must be (low, high), got ({low}, {high})")
        self.palette = palette

    def transform(self, results: dict) -> dict:
        if 'modalities' not in results:
            raise ValueError('the sample has no modalities: put LoadModalities before this')
        palette = self.palette or results.get('palette') or colour_map(256)[1:]
        results['modalities'] = {
            name: paint(values, np.asarray(palette))
            if name == CLASSES
            else to_image(name, values, self.limits.get(name))
            for name, values in results['modalities'].items()
        }
        return results
