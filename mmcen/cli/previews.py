"""What the page shows of a frame's files, and rendered frames to try."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image

from ..datasets.encodings import to_file
from ..datasets.synthetic_rooms import DECLARED, SyntheticRooms
from ..datasets.transforms.reading import as_modality
from ..modalities import ModalitySpec
from ..visualization.sheet import picture

WIDEST = 640  # pixels of a preview
NEAR_TO_FAR = colormaps['viridis']
SIZE, SCENES = (240, 320), 4  # of the examples


def encode(array: np.ndarray, widest: int | None = None) -> str:
    """Return a PNG as base64, at most ``widest`` pixels wide and high."""
    image = Image.fromarray(array)
    if widest is not None:
        image.thumbnail((widest, widest))
    buffer = io.BytesIO()
    image.save(buffer, format='PNG')
    return base64.b64encode(buffer.getvalue()).decode()


def preview(stored: np.ndarray, spec: ModalitySpec, path: str) -> dict[str, Any]:
    """Return the ``picture`` of a decoded file, and for depth its ``bar`` in metres.

    Raises:
        ValueError: If the values do not fit the modality; the text names the path.
    """
    values = as_modality(stored, spec, path)  # (H, W, C)
    if spec.kind != 'depth' and not spec.domain.startswith('depth_'):
        shown = picture(torch.from_numpy(np.ascontiguousarray(values)).permute(2, 0, 1))
        whole = shown if shown.dtype == np.uint8 else (255 * np.nan_to_num(shown)).astype(np.uint8)
        return {'picture': encode(whole, WIDEST)}
    depth = values[..., 0]
    known = depth > 0
    low, high = (float(depth[known].min()), float(depth[known].max())) if known.any() else (0, 0)
    colours = NEAR_TO_FAR((depth - low) / max(high - low, 1e-6), bytes=True)[..., :3].copy()
    colours[~known] = 0
    scale = [to_hex(NEAR_TO_FAR(i / 8)) for i in range(9)]
    bar = {'low': low, 'high': high, 'colours': scale}
    return {'picture': encode(colours, WIDEST), 'bar': bar}


def legend(maps: Sequence[np.ndarray], meta: Mapping[str, Any]) -> list[tuple]:
    """Return name, colour and share of the classes in the first map, most frequent first.

    Classes of the other maps follow with share 0.
    """
    classes, palette = meta.get('classes', ()), meta.get('palette', ())
    if not maps or not len(palette):
        return []
    counts = np.bincount(maps[0].ravel(), minlength=256)
    seen = sorted(set().union(*(np.unique(one).tolist() for one in maps)), key=lambda k: -counts[k])
    return [
        (classes[k], [int(c) for c in palette[k]], counts[k] / maps[0].size)
        for k in seen
        if k < min(len(classes), len(palette))
    ]


class Examples:
    """Rendered rooms as a user's files.

    Args:
        info: Modalities that the model takes; there are no examples if a room lacks one of them.
    """

    def __init__(self, info: Mapping[str, ModalitySpec]) -> None:
        self.info = info
        there = all(name in DECLARED and _dtype(spec) for name, spec in info.items())
        self.scenes: Any = (
            SyntheticRooms(list(info), SIZE, SCENES, split='test', cache_mb=0) if there else ()
        )
        self.answer = lru_cache(self._answer)

    def _answer(self, number: int) -> str:
        """Return a scene as JSON: ``files`` as the page sends them, and their ``previews``."""
        modalities = self.scenes[number]['modalities']
        arrays = {name: _as_stored(modalities[name], spec) for name, spec in self.info.items()}
        files = {
            name: {'name': f'room_{number + 1}.npy', 'data': _as_file(array)}
            for name, array in arrays.items()
        }
        previews = {name: preview(x, self.info[name], name) for name, x in arrays.items()}
        return json.dumps({'files': files, 'previews': previews})


def _dtype(spec: ModalitySpec) -> str | None:
    """Return a type in which the depth of a room can be stored; others have any."""
    if spec.kind != 'depth':
        return 'any'
    return next((dtype for dtype in ('float32', 'uint16') if spec.metres(dtype)), None)


def _as_stored(values: np.ndarray, spec: ModalitySpec) -> np.ndarray:
    """Convert the values (H, W, C) of a room to what a file of the modality holds."""
    dtype = _dtype(spec)
    if spec.kind == 'depth' and dtype:
        metres = spec.metres(dtype)
        assert metres is not None  # as _dtype chooses it
        return (values[..., 0] / metres).astype(dtype)
    return values if spec.kind == 'raw' else to_file(spec.domain or spec.name, values)


def _as_file(array: np.ndarray) -> str:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return base64.b64encode(buffer.getvalue()).decode()
