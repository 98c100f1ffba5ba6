"""Arrays to what the data preprocessor takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.registry import TRANSFORMS
from mmseg.datasets.transforms import PackSegInputs

META_KEYS = (
    'img_path', 'modality_paths', 'seg_map_path', 'ori_shape', 'img_shape', 'pad_shape',
    'scale_factor', 'flip', 'flip_direction', 'reduce_zero_label',
)  # fmt: skip


@TRANSFORMS.register_module()
class PackModalities(PackSegInputs):
    """mmseg's packing, with one tensor per modality.

    Gives ``inputs``: (C, H, W) by name in stream order, of the dtype of the sample, and
    ``data_samples``: a ``SegDataSample`` as mmseg packs it.

    Args:
        meta_keys: what of the sample becomes metainfo.
    """

    def __init__(self, meta_keys: Sequence[str] = META_KEYS) -> None:
        super().__init__(meta_keys=meta_keys)

    def transform(self, results: dict) -> dict:
        packed = super().transform(results)
        packed['inputs'] = {
            name: torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))
            for name, array in results['modalities'].items()
        }
        return packed
