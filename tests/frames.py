"""A tiny data set in the layout of NYUv2: noise, which is the hardest picture to interpolate."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def write_frames(root: Path, count: int, height: int, width: int) -> None:
    """``count`` frames named by number, all of them to train: colour as JPEG, 16-bit depth."""
    rng = np.random.default_rng(0)
    for folder in ('rgb', 'depth', 'masks', 'splits'):
        (root / folder).mkdir()
    for i in range(count):
        cv2.imwrite(f'{root}/rgb/{i}.jpg', rng.integers(0, 256, (height, width, 3)))
        depth = rng.integers(700, 10000, (height, width)).astype(np.uint16)
        cv2.imwrite(f'{root}/depth/{i}.png', depth)
        cv2.imwrite(f'{root}/masks/{i}.png', rng.integers(0, 41, (height, width)))
    (root / 'splits' / 'train.txt').write_text('\n'.join(map(str, range(count))))
