"""Pack arrays for the data preprocessor."""

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
    """Pack samples as mmseg does, with one tensor for each modality.

    The result has ``inputs``, (C, H, W) by name in stream order, of the dtype of the sample, and
    ``data_samples``, a ``SegDataSample`` as mmseg packs it.

    Args:
        meta_keys: Keys of the sample that become metainfo.
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
    """Convert (H, W, C) to contiguous (C, H, W) by OpenCV, five times as fast as numpy."""
    if array.dtype not in (np.uint8, np.float32):
        return np.ascontiguousarray(array.transpose(2, 0, 1))
    vertical, horizontal = (stride < 0 for stride in array.strides[:2])
    if vertical or horizontal:  # a mirrored view, which OpenCV would copy as slowly as numpy
        steps = -1 if vertical else 1, -1 if horizontal else 1
        code = -1 if vertical and horizontal else int(horizontal)
        array = cv2.flip(array[:: steps[0], :: steps[1]], code)
    return np.stack(cv2.split(array))
