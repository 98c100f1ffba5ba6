"""NYUv2 at a reduced size in one file, and batches of it that never leave the device."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SIZE = (240, 320)
QUALITY = 85  # of colour, WebP; depth and labels lose nothing
LOSSLESS = 101
METRES = 10 / 255  # of a step of depth in the file
VOID = 255
SPLITS = ('train', 'test')


def pack(root: Path, out: Path, limit: int | None = None) -> None:
    """Write the frames of a converted NYUv2 into one file.

    Colour and depth are reduced to :data:`SIZE`, and labels of the training split with them. Labels
    of the test split stay as they are, since scores are taken at full size.

    Args:
        root: Folder with ``rgb``, ``depth``, ``masks`` and ``splits``.
        out: File to write, a zip of WebP images.
        limit: Frames of each split, to try it; None is all.
    """
    with zipfile.ZipFile(out, 'w', zipfile.ZIP_STORED) as archive, ThreadPoolExecutor() as pool:
        for split in SPLITS:
            names = (root / 'splits' / f'{split}.txt').read_text().split()[:limit]
            archive.writestr(f'splits/{split}.txt', '\n'.join(names))
            jobs = pool.map(lambda name, split=split: _encode(root, name, split), names)
            for name, images in zip(names, jobs, strict=True):
                for kind, image in images.items():
                    archive.writestr(f'{kind}/{name}.webp', image)


def _encode(root: Path, name: str, split: str) -> dict[str, bytes]:
    """Compressed colour, depth and label of a frame."""
    colour = _read(root / 'rgb' / f'{name}.jpg', cv2.IMREAD_COLOR)
    depth = _read(root / 'depth' / f'{name}.png', cv2.IMREAD_UNCHANGED)
    label = _read(root / 'masks' / f'{name}.png', cv2.IMREAD_UNCHANGED)
    if depth.dtype == np.uint16:  # millimetres
        depth = np.rint(depth / 1000 / METRES).clip(0, 255).astype(np.uint8)
    size = SIZE[::-1]
    colour = cv2.resize(colour, size, interpolation=cv2.INTER_AREA)
    depth = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
    if split == 'train':
        label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
    images = {'rgb': (colour, QUALITY), 'depth': (depth, LOSSLESS), 'masks': (label, LOSSLESS)}
    return {
        kind: cv2.imencode('.webp', image, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()
        for kind, (image, quality) in images.items()
    }


def _read(path: Path, flag: int) -> np.ndarray:
    image = cv2.imread(str(path), flag)
    if image is None:
        raise ValueError(f'{path} cannot be read: give the folder of a converted NYUv2')
    return image


@dataclass
class Frames:
    """A split in the memory of a device.

    Args:
        rgb: ``(N, 3, H, W)`` uint8.
        depth: ``(N, 1, H, W)`` uint8, in steps of :data:`METRES`.
        label: ``(N, 1, H', W')`` uint8: classes 0..39, or :data:`VOID`.
    """

    rgb: Tensor
    depth: Tensor
    label: Tensor

    def __len__(self) -> int:
        return len(self.rgb)

    @property
    def size(self) -> tuple[int, int]:
        return tuple(self.rgb.shape[2:])  # type: ignore[return-value]

    def inputs(self, where: Tensor | slice) -> dict[str, Tensor]:
        """Modalities in the units of a sample, float ``(B, C, H, W)``: colour 0..255, metres."""
        return {'rgb': self.rgb[where].float(), 'depth': self.depth[where].float() * METRES}


def load(path: Path, split: str, device: str, limit: int | None = None) -> Frames:
    """Read a split from the file of :func:`pack`.

    Args:
        path: The file.
        split: ``'train'`` or ``'test'``.
        device: Where the frames are kept.
        limit: Frames to read; None is all.
    """
    with zipfile.ZipFile(path) as archive, ThreadPoolExecutor() as pool:
        names = archive.read(f'splits/{split}.txt').decode().split()[:limit]
        found = {}
        for kind in ('rgb', 'depth', 'masks'):
            data = [archive.read(f'{kind}/{name}.webp') for name in names]
            images = np.stack(list(pool.map(_decode, data)))  # (N, H, W, 3) BGR
            images = images[..., ::-1] if kind == 'rgb' else images[..., :1]
            found[kind] = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(device)
    label = torch.where(found['masks'] == 0, VOID, found['masks'] - 1)
    return Frames(found['rgb'], found['depth'], label)


def _decode(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def epoch(
    frames: Frames, batch: int, ratios: tuple[float, float], generator: torch.Generator
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Batches of augmented frames in random order: random scale, crop and flip.

    Args:
        frames: The training split.
        batch: B; the last frames that make no batch are left out.
        ratios: Smallest and largest scale, at least 1.
        generator: Generator of the frames' device.

    Yields:
        Modalities, float ``(B, C, H, W)``, and labels, int64 ``(B, 1, H, W)``.
    """
    order = torch.randperm(len(frames), generator=generator, device=generator.device)
    for start in range(0, len(frames) - batch + 1, batch):
        where = order[start : start + batch]
        grid = random_crops(batch, frames.size, ratios, generator)
        inputs = frames.inputs(where)
        inputs['rgb'] = _sample(inputs['rgb'], grid, 'bilinear')
        inputs['depth'] = _sample(inputs['depth'], grid, 'nearest')
        label = _sample(frames.label[where].float(), grid, 'nearest').long()
        yield inputs, label


def random_crops(
    batch: int, size: tuple[int, int], ratios: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Where the pixels of each frame come from, ``(B, H, W, 2)`` of ``F.grid_sample``.

    As resizing by a random ratio, cropping to the size before and flipping: the crop is a window of
    1 / ratio of the frame.
    """
    ratio, x, y, flip = torch.rand(4, batch, generator=generator, device=generator.device)
    window = 1 / (ratios[0] + (ratios[1] - ratios[0]) * ratio)  # of the frame, along both axes
    theta = torch.zeros(batch, 2, 3, device=generator.device)
    theta[:, 0, 0] = window * torch.where(flip < 0.5, -1.0, 1.0)
    theta[:, 1, 1] = window
    theta[:, 0, 2] = (1 - window) * (2 * x - 1)
    theta[:, 1, 2] = (1 - window) * (2 * y - 1)
    return F.affine_grid(theta, [batch, 1, *size], align_corners=False)


def _sample(x: Tensor, grid: Tensor, mode: str) -> Tensor:
    return F.grid_sample(x, grid, mode, padding_mode='border', align_corners=False)
