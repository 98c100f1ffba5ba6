"""The official code's way from a frame's files to the network's input, written for comparison.

After ``semantic_segmentation/utils/transforms.py`` of github.com/yikaiw/CEN, in its order, with its
data types and its padding: Pillow decodes, one channel becomes three, all is resized before it is
cropped, colour is normalised in double precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmcen.modalities import ModalitySpec

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
PADDING = (123.675, 116.28, 103.53)  # of depth, too
DEPTH_UNIT = 5.0  # metres: the official files are in millimetres, of which it takes 1/5000
INTERPOLATION = {'rgb': cv2.INTER_CUBIC, 'depth': cv2.INTER_NEAREST, 'mask': cv2.INTER_NEAREST}


@dataclass
class OfficialData:
    """Colour, depth and label of a frame, augmented and normalised.

    Args:
        depth: What the depth files are.
        crop: Side of the square crop, in pixels.
        side: Least length of the shorter side after scaling, in pixels.
        scales: Smallest and largest scale.
        zero_is_void: Mask files hold 0 for void and 1..K, else 0..K-1 and 255 as the official ones.
    """

    depth: ModalitySpec
    crop: int = 500
    side: int = 350
    scales: tuple[float, float] = (0.5, 2.0)
    zero_is_void: bool = False

    def __call__(self, frame: Mapping[str, str]) -> dict[str, Tensor]:
        """Files by ``rgb``, ``depth`` and ``mask`` to tensors: (3, H, W) float32 each, and (H, W)
        int64, random numbers from numpy's global generator."""
        sample = read(frame)
        if self.zero_is_void:
            sample['mask'] -= np.uint8(1)
        unit = self.depth.metres(sample['depth'].dtype.name)
        height, width = sample['rgb'].shape[:2]
        scale = max(np.random.uniform(*self.scales), self.side / min(height, width))
        sample = {name: resize(name, array, scale) for name, array in sample.items()}
        sample = pad(sample, self.crop)
        if np.random.randint(2):
            sample = {name: cv2.flip(array, 1) for name, array in sample.items()}
        height, width = sample['rgb'].shape[:2]
        top = np.random.randint(0, height - min(height, self.crop) + 1)
        left = np.random.randint(0, width - min(width, self.crop) + 1)
        window = slice(top, top + self.crop), slice(left, left + self.crop)
        sample = {name: array[window] for name, array in sample.items()}
        sample['rgb'] = (sample['rgb'] * (1 / 255) - MEAN) / STD
        sample['depth'] = sample['depth'] * (unit / DEPTH_UNIT)
        return to_tensors(sample)


def read(frame: Mapping[str, str]) -> dict[str, np.ndarray]:
    """(H, W, 3) for pictures and (H, W) for the mask."""
    sample = {}
    for name, path in frame.items():
        with Image.open(path) as file:
            array = np.array(file)
        if name != 'mask' and array.ndim == 2:
            array = np.tile(array, (3, 1, 1)).transpose(1, 2, 0)
        sample[name] = array
    return sample


def resize(name: str, array: np.ndarray, scale: float) -> np.ndarray:
    return cv2.resize(array, None, fx=scale, fy=scale, interpolation=INTERPOLATION[name])


def pad(sample: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """At least ``size`` pixels each way, the same on both sides."""
    edges = [(max(0, (size - length + 1) // 2),) * 2 for length in sample['rgb'].shape[:2]]
    padded = {}
    for name, array in sample.items():
        if name == 'mask':
            padded[name] = np.pad(array, edges, constant_values=255)
        else:
            channels = [np.pad(array[..., c], edges, constant_values=PADDING[c]) for c in range(3)]
            padded[name] = np.stack(channels, axis=2)
    return padded


def to_tensors(sample: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    pictures = {
        name: torch.from_numpy(array.transpose(2, 0, 1)).to(torch.float32)
        for name, array in sample.items()
        if name != 'mask'
    }
    return {**pictures, 'mask': torch.from_numpy(sample['mask']).to(torch.int64)}
