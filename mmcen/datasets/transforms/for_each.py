"""Apply the stock transforms of mmcv and mmseg to any number of modalities.

mmcv can make a transform repeat its random choices (``cache_random_params``, which its
``TransformBroadcaster`` uses). This module adds what several *kinds* of images need: an
interpolation and a padding value for each, a label that is transformed once, equal sizes, and an
error for transforms whose random choices cannot be repeated.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform, Compose
from mmcv.transforms.utils import cache_random_params
from mmengine.registry import TRANSFORMS

from ...modalities import ModalitySpec
from ..encodings import VECTORS

PADDING = ('pad_val', 'pal_val')  # as transforms of mmcv and mmseg call it
# how a flip changes the signs of a vector; x right, y down
FLIPPED = {
    direction: np.array(signs, np.float32)
    for direction, signs in (
        ('horizontal', (-1, 1, 1)),
        ('vertical', (1, -1, 1)),
        ('diagonal', (-1, -1, 1)),
    )
}


@TRANSFORMS.register_module()
class ForEachModality(BaseTransform):
    """Apply transforms written for one ``img`` to every modality, with the same random choices.

    Each modality in turn is the ``img`` of a separate sample. The label is transformed with the
    first one. Sizes, scales and flips that the transforms record are recorded in the sample.
    Normals are mirrored with a flip and stay unit vectors; rotating transforms do not rotate them.

    Interpolation and padding follow the ``modality_info`` of the sample
    (:class:`~mmcen.modalities.ModalitySpec`): ``interpolation``, and ``pad`` or ``mean``.
    Modalities without these, and the label, follow the transforms' own arguments. ``RandomRotate``
    has no interpolation: it is bilinear for all.

    Args:
        transforms: Transforms of mmcv or mmseg, e.g. ``dict(type='RandomCrop', crop_size=(500,
            500))``.
        only: Names of the modalities to transform, without the label. It is for changes of colour,
            not for transforms that move pixels.
        label: Whether to transform the label, too, if it is loaded.

    Raises:
        ValueError: If modalities differ in size, a name is unknown, a transform's random choices
            cannot be shared, or a single modality would be moved or lose its floating-point values.

    Examples:
        >>> scale = ForEachModality([dict(type='RandomScale')])
        >>> sample = dict(modalities=dict(rgb=np.zeros((480, 640, 3), np.uint8),
        ...                               depth=np.zeros((480, 640, 1), np.float32)))
        >>> moved = scale(sample)['modalities']
        >>> moved['rgb'].shape[:2] == moved['depth'].shape[:2]
        True
    """

    def __init__(
        self,
        transforms: Sequence[dict | BaseTransform],
        only: Sequence[str] | None = None,
        label: bool = True,
    ) -> None:
        self.transforms = Compose(list(transforms))
        self.only = [only] if isinstance(only, str) else only
        self.label = label
        parts = list(transform_parts(self.transforms))
        self._interpolating = [(t, t.interpolation) for t in parts if hasattr(t, 'interpolation')]
        self._padding = [
            (t, key, getattr(t, key)) for t in parts for key in PADDING if hasattr(t, key)
        ]
        self._private = [t for t in parts if _has_own_generator(t)]

    def transform(self, results: dict) -> dict | None:
        """Replace the arrays of ``results['modalities']``, (H, W, C) each."""
        if 'modalities' not in results:
            raise ValueError('the sample has no modalities: put LoadModalities before this')
        names = self._names(results)
        outputs = dict(results['modalities'])
        with_label = self.label and self.only is None
        first: dict | None = None
        with nullcontext() if len(names) < 2 else self._shared_randomness():
            for name in names:
                view = _view(results, outputs[name], with_label=with_label and first is None)
                self._prepare(results.get('modality_info', {}).get(name), outputs[name])
                if first is not None:
                    state = _random_state()
                moved = self._apply(name, view)
                if moved is None:  # mmcv: a transform may refuse a sample
                    return None
                view = moved
                if first is not None and state != _random_state():
                    raise ValueError(self._unshared())
                outputs[name] = self._picture(name, view, results)
                first = first or view
        if first is None:
            return results
        _check_sizes(outputs)
        if self.only is None:
            kept = ('img',) if self.label else ('img', 'seg_fields')
            results.update({key: value for key, value in first.items() if key not in kept})
        results['modalities'] = outputs
        return results

    def _apply(self, name: str, view: dict) -> dict | None:
        """Apply all transforms to one modality.

        Unit vectors are mirrored with every flip, and normalised after interpolation.
        """
        vectors = name in VECTORS
        for transform in self.transforms:
            before = {key: view.pop(key) for key in ('flip', 'flip_direction') if key in view}
            moved = transform(view)
            if moved is None:
                return None
            view = before | moved
            if vectors and moved.get('flip'):
                view['img'] = view['img'] * FLIPPED[view['flip_direction']]
        if vectors:
            length = np.linalg.norm(view['img'], axis=2, keepdims=True)
            view['img'] = view['img'] / np.where(length > 0, length, 1)
        return view

    def _names(self, results: dict) -> list[str]:
        """Check all names, and return the modalities to transform."""
        there = list(results['modalities'])
        _check_sizes(results['modalities'])
        if self.only is None:
            return there
        known = results.get('known_modalities', there)
        for name in self.only:
            if name not in known:
                raise ValueError(f'only={self.only}: {name!r} is unknown, known are {list(known)}')
        return [name for name in there if name in self.only]

    def _prepare(self, spec: ModalitySpec | None, image: np.ndarray) -> None:
        """Set interpolation and padding for a modality."""
        for transform, own in self._interpolating:
            transform.interpolation = own if spec is None else spec.interpolation
        value = None if spec is None else _pad_value(spec, image)
        for transform, key, own in self._padding:
            new = (
                own if value is None else {**own, 'img': value} if isinstance(own, dict) else value
            )
            setattr(transform, key, new)

    def _picture(self, name: str, view: dict, results: dict) -> np.ndarray:
        """Check and return the transformed modality, (H, W, C)."""
        before, after = results['modalities'][name], view['img']
        if before.dtype.kind == 'f' and after.dtype.kind != 'f':
            raise ValueError(
                f'{self.transforms} turned {name} from {before.dtype} to {after.dtype}, which '
                'loses its values: apply it to colour only by only=[...]'
            )
        moved = after.shape[:2] != before.shape[:2] or view.get('flip') != results.get('flip')
        if self.only is not None and moved:
            raise ValueError(
                f'only={self.only} moved {name} against the other modalities and the label: '
                'transforms that move pixels must apply to all: leave out only'
            )
        return after if after.ndim == 3 else after[..., None]

    @contextmanager
    def _shared_randomness(self) -> Iterator[None]:
        """Make all modalities get the random choices of the first."""
        forbidden = [
            t for t in transform_parts(self.transforms) if getattr(t, 'avoid_cache_randomness', 0)
        ]
        if forbidden or self._private:
            raise ValueError(self._unshared(forbidden or self._private))
        try:
            with cache_random_params(self.transforms):
                yield
        finally:
            # mmcv leaves bound copies of the methods, whose weak references cannot be pickled to
            # worker processes.
            for transform in transform_parts(self.transforms):
                for method in ('transform', *getattr(transform, '_methods_with_randomness', ())):
                    vars(transform).pop(method, None)

    def _unshared(self, culprits: Iterable[Any] | None = None) -> str:
        named = ', '.join(type(t).__name__ for t in culprits or self.transforms)
        return (
            f'modalities would be treated differently: {named} draws random numbers that mmcv '
            'cannot repeat. Apply it to one modality by only=[name], or use a transform whose '
            'random choices are methods marked by mmcv.transforms.utils.cache_randomness'
        )

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(transforms={self.transforms}, only={self.only}, '
            f'label={self.label})'
        )


def _pad_value(spec: ModalitySpec, image: np.ndarray) -> Any:
    """Return the padding value for OpenCV: a number for one channel, else a tuple.

    It is rounded for images of integers.
    """
    value = spec.padding
    if value is None:
        return None
    channels = image.shape[2]
    values = tuple(value) if isinstance(value, Sequence) else (value,) * channels
    if len(values) != channels:
        raise ValueError(
            f'modality {spec.name!r} has {channels} channels and is padded with {values}: state '
            'as many numbers in pad or mean'
        )
    if image.dtype.kind in 'ui':
        values = tuple(round(one) for one in values)
    # one channel: a number, because OpenCV drops the axis of a single channel
    return values if channels > 1 else values[0]


def transform_parts(transform: Any) -> Iterator[Any]:
    """Yield a transform and those inside it, as in Compose, RandomApply or RandomResize."""
    yield transform
    inside = list(transform) if isinstance(transform, Iterable) else []
    held = [t for t in getattr(transform, '__dict__', {}).values() if isinstance(t, BaseTransform)]
    for part in inside + [t for t in held if all(t is not other for other in inside)]:
        yield from transform_parts(part)


def _has_own_generator(transform: Any, depth: int = 2) -> bool:
    """Whether a transform has its own generator, as newer Albumentations have."""
    if isinstance(transform, (np.random.Generator, np.random.RandomState, random.Random)):
        return True
    held = getattr(transform, '__dict__', {}).values() if depth else ()
    return any(_has_own_generator(part, depth - 1) for part in held)


def _view(results: dict, image: np.ndarray, with_label: bool) -> dict:
    """Return the sample in the form of stock transforms: one ``img``, and optionally the label."""
    view = {
        key: value
        for key, value in results.items()
        if key != 'modalities' and (with_label or not key.startswith('gt_'))
    }
    if not with_label:
        view['seg_fields'] = []
    view['img'] = image
    return view


def _check_sizes(modalities: Mapping[str, np.ndarray]) -> None:
    sizes = {name: array.shape[:2] for name, array in modalities.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f'modalities differ in size (height, width): {sizes}; they must be aligned pixel by '
            'pixel, so register them first and apply the same transforms to them'
        )


def _random_state() -> tuple:
    """Return the state of the global generators, comparable by ``==``."""
    _, keys, position, *_ = np.random.get_state()
    return (
        np.asarray(keys).tobytes(),
        position,
        random.getstate(),
        torch.get_rng_state().numpy().tobytes(),
    )
