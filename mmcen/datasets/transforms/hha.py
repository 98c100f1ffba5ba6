"""Transform depth to HHA in a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

from ...modalities import ModalitySpec
from ..domains import camera_matrix, smooth_depth
from ..hha import encode_hha, unit_vector


@TRANSFORMS.register_module()
class DepthToHHA(BaseTransform):
    """Add the HHA encoding of the sample's depth as a modality, see :mod:`~mmcen.datasets.hha`.

    Put it right after LoadModalities, because later transforms move pixels relative to the camera.
    ``intrinsics`` (3, 3) and ``gravity`` (3,) of the sample, if the data set knows them, take
    precedence over the arguments. The encoding of a file is stored in the ``cache`` of the data
    set, if it has one; that of corrupted depth is not.

    It reads ``modalities``, ``modality_info``, and for the cache ``modality_paths``. It adds
    ``modalities[name]``, (H, W, 3) float32 in 0..255, 0 where depth is missing, and its
    ``modality_info``: resized like depth and padded with 0.

    Args:
        camera: fx, fy, cx, cy in pixels.
        size: (width, height) for which ``camera`` was calibrated; it is scaled to the frames.
        gravity: Direction of gravity in the camera frame (x right, y down, z forward); by default
            it is estimated in each frame.
        source, name: Modalities that are read and added.
        keep: Whether to keep depth as another modality.
        step: Step of the depth's quantisation in metres, if it is coarse: NYUv2 in 8 bits has
            steps of 0.039. Depth is smoothed accordingly; otherwise normals would show only the
            edges of the steps.
        radius: Radius of the normals' windows, in pixels.

    Raises:
        ValueError: If camera, size, gravity, step or radius are invalid, or depth is missing.

    Examples:
        >>> import numpy as np
        >>> wall = dict(modalities=dict(depth=np.full((12, 16, 1), 3.1, np.float32)))
        >>> hha = DepthToHHA((20, 20, 7.5, 5.5), (16, 12))(wall)['modalities']['hha']
        >>> hha[6, 8].round().tolist()  # 310 / 3.1, 1.2 m high, and a right angle
        [100.0, 122.0, 128.0]
    """

    def __init__(
        self,
        camera: Sequence[float],
        size: Sequence[int],
        gravity: Sequence[float] | None = None,
        source: str = 'depth',
        name: str = 'hha',
        keep: bool = False,
        step: float = 0.0,
        radius: int = 3,
    ) -> None:
        camera_matrix(camera, size, 1, 1)
        if gravity is not None:
            unit_vector('gravity', gravity)
        if step < 0 or radius < 1:
            raise ValueError(f'step {step} must not be negative, radius {radius} at least 1')
        self.camera, self.size, self.gravity = camera, size, gravity
        self.source, self.name, self.keep = source, name, keep
        self.step, self.radius = step, radius

    def transform(self, results: dict) -> dict:
        modalities = dict(results.get('modalities') or {})
        depth = modalities.get(self.source)
        if depth is None and modalities and self.source in results.get('known_modalities', ()):
            return results  # absent in this frame
        if depth is None or depth.shape[2] != 1:
            raise ValueError(
                f'the sample has no depth {self.source!r} of one channel but {list(modalities)}: '
                'put LoadModalities before this, and load it, or name another source'
            )
        height, width = depth.shape[:2]
        camera = results.get('intrinsics')
        if camera is None:
            camera = camera_matrix(self.camera, self.size, height, width)
        gravity = results.get('gravity', self.gravity)
        encode = partial(self._encode, depth[..., 0], camera, gravity)
        stored = self.source not in results.get('corrupted', ())
        if 'cache' in results and stored and self.source in results['modality_paths']:
            given = (np.asarray(camera).tolist(), None if gravity is None else list(gravity))
            unit = results['modality_info'][self.source].unit
            facts = (*given, self.step, self.radius, unit)
            path = results['modality_paths'][self.source]
            modalities[self.name] = results['cache'].fetch(path, encode, f'HHA {facts}')
        else:
            modalities[self.name] = encode()
        if not self.keep:
            del modalities[self.source]
        results['modalities'] = modalities
        made = ModalitySpec(self.name, kind='raw', pad=0.0, interpolation='nearest')
        results['modality_info'] = {**results.get('modality_info', {}), self.name: made}
        known = list(results.get('known_modalities', modalities))
        results['known_modalities'] = known + [self.name] * (self.name not in known)
        return results

    def _encode(
        self, depth: np.ndarray, camera: np.ndarray, gravity: Sequence[float] | None
    ) -> np.ndarray:
        metres = smooth_depth(depth, self.step) if self.step else depth
        return encode_hha(metres, camera, gravity, self.radius)
