"""Arrays to what the data preprocessor takes."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
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
        meta_keys: What of the sample becomes metainfo.
    """

    def __init__(self, meta_keys: Sequence[str] = META_KEYS) -> None:
        super().__init__(meta_keys=meta_keys)

    def transform(self, results: dict) -> dict:
        packed = super().transform(results)
        packed['inputs'] = {
            name: torch.from_numpy(planes(array)) for name, array in results['modalities'].items()
        }
        return packed


def planes(array: np.ndarray) -> np.ndarray:
    """(H, W, C) to (C, H, W), contiguous: by OpenCV, which is five times as fast as numpy there."""
    if array.dtype not in (np.uint8, np.float32):
        return np.ascontiguousarray(array.transpose(2, 0, 1))
    vertical, horizontal = (stride < 0 for stride in array.strides[:2])
    if vertical or horizontal:  # a mirrored view, of which OpenCV would make a copy like numpy's
        steps = -1 if vertical else 1, -1 if horizontal else 1
        code = -1 if vertical and horizontal else int(horizontal)
        array = cv2.flip(array[:: steps[0], :: steps[1]], code)
    return np.stack(cv2.split(array))
