"""Load the files of a frame."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

from .plausible import has_content
from .reading import as_modality, read_array

IGNORE = 255


@TRANSFORMS.register_module()
class LoadModalities(BaseTransform):
    """Load all modalities of a frame.

    It reads ``modality_paths`` (a path, or an array as it would be stored), ``modality_info``,
    ``cache`` if the data set has one, and ``modality_origins`` (names of arrays for messages) if
    there are any. It adds ``modalities``, (H, W, C) by name in stream order (colour uint8 RGB,
    depth float32 metres), ``img_shape`` and ``ori_shape``, (H, W).

    Args:
        backend_args: mmengine's file backend.
        empty: How to handle a modality of a frame without content, in which all finite values of a
            channel are equal: ``'use'`` it unchanged, or treat it as ``'absent'`` unless this holds
            for all modalities of the frame; then give the loader ``batch_size=1``, because all
            frames of a batch have the same modalities. In both cases a warning names the first such
            file of a folder.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is truncated, its type does not fit its modality, its size differs
            from the others, or ``empty`` is another word.
    """

    def __init__(self, backend_args: dict | None = None, empty: str = 'use') -> None:
        if empty not in ('use', 'absent'):
            raise ValueError(f"empty must be 'use' or 'absent', got {empty!r}")
        self.backend_args, self.empty = backend_args, empty

    def transform(self, results: dict) -> dict:
        paths = results['modality_paths']
        origins = results.get('modality_origins', {})
        labels = {name: origins.get(name) or _name(name, path) for name, path in paths.items()}
        modalities = {
            name: as_modality(
                path if isinstance(path, np.ndarray) else _stored(path, results, self.backend_args),
                results['modality_info'][name],
                labels[name],
            )
            for name, path in paths.items()
        }
        info = results['modality_info']
        first = min(modalities, key=lambda name: info[name].fit)
        shape = modalities[first].shape[:2]
        for name, array in modalities.items():
            if info[name].fit:
                resized = cv2.resize(array, shape[::-1], interpolation=cv2.INTER_LINEAR)
                modalities[name] = resized.reshape(*shape, -1)
            elif array.shape[:2] != shape:
                raise ValueError(
                    f'{labels[name]} has {array.shape[:2]} pixels (height, width) but '
                    f'{labels[first]} has {shape}: modalities must be aligned pixel '
                    'by pixel, so register them first'
                )
        full = [name for name, x in modalities.items() if has_content(x, labels[name])]
        if self.empty == 'absent' and full:
            modalities = {name: modalities[name] for name in full}
        results['modalities'] = modalities
        results['img_shape'] = results['ori_shape'] = shape
        return results


def _stored(
    path: str, results: dict, backend_args: dict | None, indices: bool = False
) -> np.ndarray:
    """Decode a file, by the cache of the data set if it has one.

    See :func:`~mmcen.datasets.transforms.reading.read_array`.
    """
    cache = results.get('cache')
    read = partial(read_array, path, backend_args, indices)
    return read() if cache is None else cache.fetch(path, read, 'indices' if indices else 'values')


def _name(modality: str, path: str | np.ndarray) -> str:
    """Return the name of a file or array for errors."""
    return f'the array of {modality!r}' if isinstance(path, np.ndarray) else path


@TRANSFORMS.register_module()
class LoadLabel(BaseTransform):
    """Load the label map of a frame, and reject values that are not a class.

    mmseg's ``LoadAnnotations`` works, too, but accepts any value and any size. In training, put
    LoadLabel before the transforms that move pixels; in test, after them, because mmseg compares
    the prediction at the original size.

    Reads ``seg_map_path``, ``num_classes``, ``reduce_zero_label``, ``label_map``, ``cache``; adds
    ``gt_seg_map``: (H, W) uint8, classes 0..K-1 and 255 for void.

    Args:
        optional: Let frames without a label map pass, for prediction.
        backend_args: mmengine's file backend.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If there is no label, or it is truncated, is not one channel of integers, has
            another size than the modalities, or holds values that are not a class.
    """

    def __init__(self, optional: bool = False, backend_args: dict | None = None) -> None:
        self.optional = optional
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        path = results.get('seg_map_path')
        if path is None:
            if self.optional:
                return results
            raise ValueError(
                f'{results.get("img_path")} has no label map: give the data set labels=dict(dir=, '
                'suffix=), or load with LoadLabel(optional=True)'
            )
        label = _stored(path, results, self.backend_args, indices=True)
        if label.ndim != 2 or label.dtype.kind not in 'ui':
            raise ValueError(
                f'{path} is {label.dtype} of shape {label.shape}, but a label map is one channel '
                'of whole numbers, (H, W): store class numbers, not their colours'
            )
        if 'ori_shape' in results and label.shape != tuple(results['ori_shape'][:2]):
            raise ValueError(
                f'{path} has {label.shape} pixels (height, width) but {results["img_path"]} has '
                f'{tuple(results["ori_shape"][:2])}: a label map must be aligned pixel by pixel'
            )
        _check_range(label, results, path)
        results['gt_seg_map'] = cv2.LUT(label.astype(np.uint8, copy=False), _class_of(results))
        results.setdefault('seg_fields', []).append('gt_seg_map')
        return results


def _check_range(label: np.ndarray, results: dict, path: str) -> None:
    count = results.get('num_classes')
    reduced = bool(results.get('reduce_zero_label'))
    top = IGNORE if count is None else count if reduced else count - 1
    low, high = label.min(), label.max()
    if high == IGNORE > top:  # void is allowed, so look below it: rarely needed, hence apart
        high = label.max(where=label != IGNORE, initial=0)
    if low < 0 or high > top:
        raise ValueError(
            f'{path} holds label {low if low < 0 else high}, but labels are 0..{top}, and {IGNORE} '
            'for void: correct the file, or the classes of the data set'
        )


def _class_of(results: dict) -> np.ndarray:
    """Class of each stored value, (256,) uint8: zero label off first, then mmseg's label map."""
    table = np.arange(256, dtype=np.uint8)
    if results.get('reduce_zero_label'):
        table[1:255] -= 1
        table[0] = IGNORE
    label_map = results.get('label_map')
    if label_map:
        renamed = np.arange(256, dtype=np.uint8)
        renamed[list(label_map)] = list(label_map.values())
        table = renamed[table]
    return table
