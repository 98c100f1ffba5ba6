"""Random scale and crop in one step, without interpolating pixels outside the crop."""

from __future__ import annotations

import math

import cv2
import numpy as np
from mmcv.image.geometric import cv2_interp_codes
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmengine.registry import TRANSFORMS

from .random_scale import check_range, draw_size

VOID = 255
TRIES = 10  # windows, as mmseg
REACH = 4  # source pixels on each side that interpolation reads at most (Lanczos)
Window = tuple[slice, slice]


@TRANSFORMS.register_module()
class RandomScaleCrop(BaseTransform):
    """:class:`RandomScale`, then mmseg's ``RandomCrop``, in one step.

    It draws the same random numbers as both transforms in sequence, records the same keys, and
    gives the same images. Labels and 'nearest' are bit-identical. Others differ by rounding in the
    columns that OpenCV treats as the last ones, by 1 of 255 for bicubic colour. An image that is
    smaller than the crop after scaling is not padded; pad it after this transform.

    Args:
        crop_size: Height and width of the crop, in pixels; one number for a square.
        ratio_range: Smallest and largest factor.
        min_side: Lower bound of the shorter side before cropping, in pixels.
        interpolation: Interpolation of the image, a name of mmcv: 'nearest', 'bilinear', 'bicubic',
            'area', 'lanczos'. Labels are always 'nearest'.
        cat_max_ratio: Largest share of one class in the window, without void; otherwise another
            window is drawn, at most ten times. 1 accepts any window.

    Raises:
        ValueError: If the range or the crop is empty or not positive.

    Examples:
        >>> sample = dict(img=np.zeros((480, 640, 3), np.uint8), seg_fields=[])
        >>> RandomScaleCrop(crop_size=300)(sample)['img'].shape
        (300, 300, 3)
    """

    def __init__(
        self,
        crop_size: int | tuple[int, int],
        ratio_range: tuple[float, float] = (0.5, 2.0),
        min_side: int = 350,
        interpolation: str = 'bilinear',
        cat_max_ratio: float = 1.0,
    ) -> None:
        check_range(ratio_range)
        self.crop_size = (crop_size,) * 2 if isinstance(crop_size, int) else tuple(crop_size)
        if min(self.crop_size) < 1:
            raise ValueError(f'crop_size {crop_size} is not positive: give (height, width)')
        self.ratio_range = ratio_range
        self.min_side = min_side
        self.interpolation = interpolation
        self.cat_max_ratio = cat_max_ratio

    def transform(self, results: dict) -> dict:
        height, width = results['img'].shape[:2]
        label = results.get('gt_seg_map')
        size, window = self._random_size_and_window(width, height, label)
        results['img'] = resize_window(results['img'], size, window, self.interpolation)
        for key in results.get('seg_fields', []):
            results[key] = resize_window(results[key], size, window, 'nearest')
        results['img_shape'] = results['img'].shape[:2]
        results['scale'] = size
        results['scale_factor'] = (size[0] / width, size[1] / height)
        results['keep_ratio'] = False
        return results

    @cache_randomness
    def _random_size_and_window(
        self, width: int, height: int, label: np.ndarray | None
    ) -> tuple[tuple[int, int], Window]:
        """Draw width and height after scaling, and the rows and columns of the window."""
        size = draw_size((width, height), self.ratio_range, self.min_side)
        window = self._random_window(size)
        if self.cat_max_ratio < 1 and label is not None:
            for _ in range(TRIES):
                counts = np.bincount(resize_window(label, size, window, 'nearest').ravel())[:VOID]
                if (
                    np.count_nonzero(counts) > 1
                    and counts.max() < self.cat_max_ratio * counts.sum()
                ):
                    break
                window = self._random_window(size)
        return size, window

    def _random_window(self, size: tuple[int, int]) -> Window:
        rows, columns = (
            min(length, side) for length, side in zip(size[::-1], self.crop_size, strict=True)
        )
        top = np.random.randint(0, size[1] - rows + 1)
        left = np.random.randint(0, size[0] - columns + 1)
        return slice(top, top + rows), slice(left, left + columns)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(crop_size={self.crop_size}, ratio_range={self.ratio_range}, '
            f'min_side={self.min_side}, interpolation={self.interpolation!r}, '
            f'cat_max_ratio={self.cat_max_ratio})'
        )


def resize_window(
    image: np.ndarray, size: tuple[int, int], window: Window, interpolation: str
) -> np.ndarray:
    """Compute a window of the resized image from the part of the image that it needs.

    OpenCV samples from the top left corner and supports no offset, so only the pixels right of the
    window and below it are left out, a third of all pixels in training on NYUv2. Positions and
    weights do not change.

    Args:
        image: (H, W) or (H, W, C).
        size: Width and height of the complete resized image.
        window: Rows and columns of the resized image.
        interpolation: Name of an interpolation in mmcv.

    Returns:
        The window, a view; without the axis of a single channel, as OpenCV's resize.
    """
    ratios = size[0] / image.shape[1], size[1] / image.shape[0]
    right, bottom = (
        _needed(part.stop, ratio) for part, ratio in zip(window[::-1], ratios, strict=True)
    )
    part = cv2.resize(
        image[:bottom, :right],
        None,
        fx=ratios[0],
        fy=ratios[1],
        interpolation=cv2_interp_codes[interpolation],
    )
    return part[window]


def _needed(stop: int, ratio: float) -> int:
    """Return the number of source pixels that the first ``stop`` resized pixels depend on."""
    return math.ceil(stop / ratio + 1 / ratio) + REACH  # a pixel of 'area' spans 1 / ratio
