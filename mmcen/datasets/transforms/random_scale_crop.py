"""Random scale and crop in one step: what the crop leaves out is not interpolated."""

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
REACH = 4  # source pixels each way of a point that its interpolation reads, at most: Lanczos
Window = tuple[slice, slice]


@TRANSFORMS.register_module()
class RandomScaleCrop(BaseTransform):
    """:class:`RandomScale`, then mmseg's ``RandomCrop``, without the pixels that it throws away.

    Draws the same random numbers as the two one after the other, notes the same keys, and gives
    the same pictures: labels and 'nearest' to the bit, others but for the order of rounding in
    columns that OpenCV treats as its last ones, 1 of 255 for bicubic colour. A picture that is
    smaller than the crop after scaling stays so; pad it after this.

    Args:
        crop_size: Height and width to cut out, in pixels; one number for a square.
        ratio_range: Smallest and largest factor.
        min_side: Lower bound of the shorter side before cropping, in pixels.
        interpolation: Interpolation of the image, a name of mmcv: 'nearest', 'bilinear', 'bicubic',
            'area', 'lanczos'. Labels are always 'nearest'.
        cat_max_ratio: Share of ``gt_seg_map`` without void that one class may have in the window;
            another window is drawn ten times at most. 1 takes any.

    Raises:
        ValueError: The range or the crop is empty or not positive.

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
        """Width and height after scaling, and the rows and columns that are kept of them."""
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
    """A window of the resized image, computed from the part of the image that it needs.

    OpenCV samples from the top left corner on and knows no offset, so what lies right of the
    window and below it is left out, a third of all pixels in training on NYUv2; that leaves every
    position and weight as it was.

    Args:
        image: (H, W) or (H, W, C).
        size: Width and height to which all of it would be resized.
        window: Rows and columns of the resized image.
        interpolation: A name of mmcv.

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
    """Source pixels, from the first one, that the first ``stop`` resized pixels are made of."""
    return math.ceil(stop / ratio + 1 / ratio) + REACH  # a pixel of 'area' spans 1 / ratio
