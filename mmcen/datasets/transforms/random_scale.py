"""Random scale of an image by a factor, as in the official code."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import RandomResize
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomScale(RandomResize):
    """Resize by a random factor, with a lower bound of the shorter side.

    The factor is drawn uniformly. The official code uses 0.5..2 and a shorter side of at least 350.
    The parent class scales a fixed size and has no lower bound.

    Args:
        ratio_range: Smallest and largest factor.
        min_side: Lower bound of the shorter side, in pixels.
        **resize_kwargs: Arguments of mmcv's ``RandomResize``, such as ``resize_type``.

    Raises:
        ValueError: If the range is empty or not positive.
    """

    def __init__(
        self,
        ratio_range: tuple[float, float] = (0.5, 2.0),
        min_side: int = 350,
        **resize_kwargs: Any,
    ) -> None:
        check_range(ratio_range)
        super().__init__(scale=(1, 1), ratio_range=tuple(ratio_range), **resize_kwargs)
        self.min_side = min_side

    def transform(self, results: dict) -> dict:
        height, width = results['img'].shape[:2]
        self.scale = (width, height)
        return super().transform(results)

    def _random_sample_ratio(
        self, scale: tuple[int, int], ratio_range: tuple[float, float]
    ) -> tuple[int, int]:
        """Draw width and height; the parent calls it and shares random values."""
        return draw_size(scale, ratio_range, self.min_side)


def draw_size(
    size: tuple[int, int], ratio_range: tuple[float, float], min_side: int
) -> tuple[int, int]:
    """Draw width and height after scaling, with a lower bound of the shorter side."""
    # the global generator, as in mmcv's transforms: mmengine seeds it in every worker
    ratio = max(np.random.uniform(*ratio_range), min_side / min(size))
    return round(size[0] * ratio), round(size[1] * ratio)


def check_range(ratio_range: tuple[float, float]) -> None:
    """Raise ValueError if a range of factors is empty or not positive."""
    if not 0 < ratio_range[0] <= ratio_range[1]:
        raise ValueError(f'ratio_range {ratio_range} is not an interval above 0: give (low, high)')
