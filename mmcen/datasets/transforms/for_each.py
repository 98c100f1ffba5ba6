"""The stock transforms of mmcv and mmseg, on any number of modalities alike.

mmcv can make a transform repeat its random choices (``cache_random_params``, which its
``TransformBroadcaster`` uses). What is added here is what several *kinds* of picture need: an
interpolation and a padding value for each, a label that is moved once, sizes that stay equal, and
an error from a transform whose random choices cannot be repeated.
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
# x right, y down: what a mirrored world makes of a vector
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

    Each modality in turn is the ``img`` of a sample of its own. The label goes along with the
    first. Sizes, scales and flips that the transforms note are noted in the sample. Normals turn
    with a flip, and stay unit vectors; rotating transforms do not turn them.

    Transforms that interpolate or pad do so as the ``modality_info`` of the sample says
    (:class:`~mmcen.modalities.ModalitySpec`): by its ``interpolation`` and with its ``pad`` or
    ``mean``. Modalities without are treated as the transforms' own arguments say, and so is the
    label. ``RandomRotate`` has no interpolation: it is bilinear for all.

    Args:
        transforms: Transforms of mmcv or mmseg, e.g. ``dict(type='RandomCrop', crop_size=(500,
            500))``.
        only: Names of the modalities to treat; the label is then left alone. For changes of
            colour, not for moving pixels.
        label: Whether the label goes along, where it is loaded already.

    Raises:
        ValueError: Modalities differ in size, a name is unknown, a transform's random choices
            cannot be shared, or one modality alone would be moved or lose its floating-point
            values.

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
        """Apply to ``results['modalities']``, (H, W, C) each, in place of the arrays there."""
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
        """All transforms on one modality. Unit vectors turn with every flip and stay unit vectors,
        whatever interpolation makes of them."""
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
        """Modalities to treat, after a check of all names."""
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
        """Set what differs by modality."""
        for transform, own in self._interpolating:
            transform.interpolation = own if spec is None else spec.interpolation
        value = None if spec is None else _pad_value(spec, image)
        for transform, key, own in self._padding:
            new = (
                own if value is None else {**own, 'img': value} if isinstance(own, dict) else value
            )
            setattr(transform, key, new)

    def _picture(self, name: str, view: dict, results: dict) -> np.ndarray:
        """The transformed modality, (H, W, C)."""
        before, after = results['modalities'][name], view['img']
        if before.dtype.kind == 'f' and after.dtype.kind != 'f':
            raise ValueError(
                f'{self.transforms} turned {name} from {before.dtype} to {after.dtype}, which '
                'loses its values: let it treat colour alone by only=[...]'
            )
        moved = after.shape[:2] != before.shape[:2] or view.get('flip') != results.get('flip')
        if self.only is not None and moved:
            raise ValueError(
                f'only={self.only} moved {name} against the other modalities and the label: '
                'transforms that move pixels must treat all, leave out only'
            )
        return after if after.ndim == 3 else after[..., None]

    @contextmanager
    def _shared_randomness(self) -> Iterator[None]:
        """All modalities get the random choices of the first."""
        forbidden = [
            t for t in transform_parts(self.transforms) if getattr(t, 'avoid_cache_randomness', 0)
        ]
        if forbidden or self._private:
            raise ValueError(self._unshared(forbidden or self._private))
        try:
            with cache_random_params(self.transforms):
                yield
        finally:
            # mmcv leaves bound copies of the methods behind, which hold weak references and so
            # keep the data set from being pickled to worker processes.
            for transform in transform_parts(self.transforms):
                for method in ('transform', *getattr(transform, '_methods_with_randomness', ())):
                    vars(transform).pop(method, None)

    def _unshared(self, culprits: Iterable[Any] | None = None) -> str:
        named = ', '.join(type(t).__name__ for t in culprits or self.transforms)
        return (
            f'modalities would be treated differently: {named} draws random numbers that mmcv '
            'cannot repeat. Let it treat one modality by only=[name], or use a transform whose '
            'random choices are methods marked by mmcv.transforms.utils.cache_randomness'
        )

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(transforms={self.transforms}, only={self.only}, '
            f'label={self.label})'
        )


def _pad_value(spec: ModalitySpec, image: np.ndarray) -> Any:
    """What the image is padded with, as OpenCV takes it: a number for one channel, else a tuple.
    The mean of whole numbers is rounded."""
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
    """A transform and those inside it, as in Compose, RandomApply or RandomResize."""
    yield transform
    inside = list(transform) if isinstance(transform, Iterable) else []
    held = [t for t in getattr(transform, '__dict__', {}).values() if isinstance(t, BaseTransform)]
    for part in inside + [t for t in held if all(t is not other for other in inside)]:
        yield from transform_parts(part)


def _has_own_generator(transform: Any, depth: int = 2) -> bool:
    """Whether it draws from a generator of its own, as newer Albumentations do."""
    if isinstance(transform, (np.random.Generator, np.random.RandomState, random.Random)):
        return True
    held = getattr(transform, '__dict__', {}).values() if depth else ()
    return any(_has_own_generator(part, depth - 1) for part in held)


def _view(results: dict, image: np.ndarray, with_label: bool) -> dict:
    """The sample as a stock transform knows it: one ``img``, and the label or none."""
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
            'pixel, so register them first and treat them by the same transforms'
        )


def _random_state() -> tuple:
    """State of the global generators, from which transforms draw; comparable by ``==``."""
    _, keys, position, *_ = np.random.get_state()
    return (
        np.asarray(keys).tobytes(),
        position,
        random.getstate(),
        torch.get_rng_state().numpy().tobytes(),
    )
