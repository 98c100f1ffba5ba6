"""Transforms for saliency samples: relative depth, pseudo labels, masks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

from ...saliency import SURE, handmade_saliency, nearness
from .reading import read_array

BETWEEN = 0.05  # share of a mask that may be grey: edges, and noise of JPEG


def grey(array: np.ndarray, path: str) -> np.ndarray:
    """Return one channel (H, W) of an image that may be stored in three equal channels.

    Raises:
        ValueError: If the channels differ.
    """
    if array.ndim == 2:
        return array
    colours = array[..., :3].astype(np.float32)  # a fourth one is opacity
    if np.ptp(colours, axis=2).mean() > 2:  # JPEG makes small differences
        raise ValueError(f'{path} is coloured, but depth and masks are grey: take the stored map')
    return array[..., 0]


@TRANSFORMS.register_module()
class RelativeDepth(BaseTransform):
    """Convert depth of any unit and direction to 0..1, 1 for the nearest pixel of the frame.

    Put it right after loading, because the complete frame determines the scale.

    Args:
        modality: Name of the depth modality.
        near: Which values are near, ``'low'`` or ``'high'``; None for those of the data set.
        missing: The value of pixels without depth; None if there are none.

    Raises:
        ValueError: If it is unknown which values are near, or the depth is a colour image.
    """

    def __init__(
        self, modality: str = 'depth', near: str | None = None, missing: float | None = None
    ) -> None:
        self.modality = modality
        self.near = near
        self.missing = missing

    def transform(self, results: dict) -> dict:
        if self.modality not in results['modalities']:
            return results  # absent in this frame
        near = self.near or results.get('near')
        if near is None:
            raise ValueError("the data set does not say which depth is near: give near='low'")
        depth = grey(results['modalities'][self.modality], results['img_path'])
        relative = nearness(depth.reshape(depth.shape[:2]), near, self.missing)
        results['modalities'] = results['modalities'] | {self.modality: relative[..., None]}
        return results


@TRANSFORMS.register_module()
class LoadPseudoLabel(BaseTransform):
    """Load a pseudo label: the last update, or else the file, or else a handcrafted map.

    Put it after RelativeDepth and before the geometric transforms. :class:`PseudoLabelHook` sets
    ``updated``, the folder of the last update. A label is stored in 8 bits, 0..255, at any size.

    Args:
        key: ``'gt_seg_map'`` for training, (H, W) uint8 with 0..254 for 0..1 and 255 for void; or
            another key, for comparison, (H, W) float32 within 0..1.
    """

    def __init__(self, key: str = 'gt_seg_map') -> None:
        self.key = key
        self.updated: str | None = None

    def transform(self, results: dict) -> dict:
        label = self._label(results)
        if label is None:
            return results
        if label.shape != tuple(results['img_shape']):
            label = cv2.resize(label, results['img_shape'][::-1], interpolation=cv2.INTER_LINEAR)
        if self.key != 'gt_seg_map':
            results[self.key] = label
            return results
        results[self.key] = np.rint(label * SURE).astype(np.uint8)
        if self.key not in results.setdefault('seg_fields', []):
            results['seg_fields'].append(self.key)
        return results

    def _label(self, results: dict) -> np.ndarray | None:
        """Return the label, or None if it would be made of a modality that is absent."""
        path = results.get('pseudo_path')
        if self.updated:
            path = str(label_file(self.updated, results['img_path']))
        if path is None:
            if not {'rgb', 'depth'} <= set(results['modalities']):
                if self.key != 'gt_seg_map':
                    return None
                raise ValueError(
                    f'{results["img_path"]} has no pseudo label, and colour and depth are needed '
                    f'to make one, but there is only {list(results["modalities"])}'
                )
            rgb, depth = (results['modalities'][name] for name in ('rgb', 'depth'))
            return handmade_saliency(rgb, depth[..., 0])
        return grey(read_array(path), path).astype(np.float32) / 255


def label_file(folder: str, img_path: str) -> Path:
    """Return the path of a frame's updated pseudo label, different for frames of several sets."""
    *parents, name = Path(img_path).with_suffix('').parts[-3:]
    return Path(folder, *parents, f'{name}.png')


@TRANSFORMS.register_module()
class LoadMask(BaseTransform):
    """Load the mask of salient objects as ``gt_seg_map``, (H, W) uint8 of 0 and 1.

    In test, put it after the transforms that move pixels, like LoadLabel.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it is not a mask, has another size than the colour, or the data set has none.
    """

    def transform(self, results: dict) -> dict:
        path = results.get('seg_map_path')
        if path is None:
            raise ValueError(f'{results["img_path"]} has no mask: give the data set masks=True')
        mask = grey(read_array(path), path)
        if mask.shape != tuple(results['ori_shape']):
            raise ValueError(
                f'{path} has {mask.shape} pixels (height, width) but {results["img_path"]} has '
                f'{tuple(results["ori_shape"])}: they must be aligned pixel by pixel'
            )
        white = 1 if mask.max() <= 1 else 255
        between = np.mean((mask > 0.2 * white) & (mask < 0.8 * white))
        if between > BETWEEN:
            raise ValueError(
                f'{path} is not a mask: {between:.0%} of it is between black and white, it may be '
                'a map of saliency: take the ground truth'
            )
        results['gt_seg_map'] = (mask > 0.5 * white).astype(np.uint8)
        results.setdefault('seg_fields', []).append('gt_seg_map')
        return results
