"""Specification of a modality: files, unit, and how it is resized, padded and normalised.

A config states a list of modalities once and gives it to the data set and to the data
preprocessor. The order of the list is the order of the streams.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

UNITS = {'m': 1.0, 'cm': 0.01, 'mm': 0.001}  # metres
# colour: 8-bit, three channels. depth: one channel, turned into metres. domain: one of Taskonomy's,
# turned into physical units. raw: taken as stored.
KINDS = ('colour', 'depth', 'domain', 'raw')
# of outputs, and of methods of the containers that hold them by name
RESERVED = (
    'ensemble', 'fused', 'pop', 'get', 'keys', 'values', 'items', 'new', 'clone', 'to', 'cpu',
    'cuda', 'npu', 'mlu', 'musa', 'detach', 'numpy', 'update', 'type', 'metainfo',
)  # fmt: skip
INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic', 'area', 'lanczos')
Numbers = float | Sequence[float]


@dataclass(frozen=True)
class ModalitySpec:
    """Specification of one modality.

    Args:
        name: Name of the stream. Errors, predictions and metrics use it.
        dir: Folder of its files below the data root; default: ``name``.
        suffix: What follows the name of the frame in a file name, or several to take whichever
            exists.
        kind: ``'colour'``, ``'depth'``, ``'domain'`` or ``'raw'``. Default: ``'depth'`` where a
            ``unit`` is stated, ``'domain'`` where a ``domain`` is, else ``'colour'``.
        unit: Unit of depth files: ``'mm'``, ``'cm'``, ``'m'``, or metres per stored number. Or one
            for each storage type, such as ``dict(uint16='mm', float32='m')``; files of other types
            are rejected.
        domain: Name of a domain in :data:`~mmcen.datasets.encodings.ENCODINGS`.
        fit: Resize it to the other modalities when it is loaded; by default, another size is an
            error. For sets that are aligned but stored at two sizes.
        mean: Mean of each channel, in the units of the sample (colour 0..255, depth in metres).
        std: Standard deviation of each channel, likewise.
        pad: Value of padding, one number or one per channel. Default: the mean.
        interpolation: How it is resized, a name of mmcv. Default: ``'nearest'`` for depth and for
            domains of depth or segments, which have edges that must not be mixed, else
            ``'bilinear'``.

    Raises:
        ValueError: If a value is not possible, or two of them contradict each other.

    Examples:
        >>> spec = ModalitySpec('depth', unit='mm', mean=[2.8], std=[1.6])
        >>> spec.dir, spec.kind, spec.interpolation, spec.metres('uint16')
        ('depth', 'depth', 'nearest', 0.001)
    """

    name: str
    dir: str | None = None
    suffix: str | Sequence[str] = '.png'
    kind: str = ''
    unit: str | float | Mapping[str, str | float] | None = None
    domain: str = ''
    fit: bool = False
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    pad: Numbers | None = None
    interpolation: str = ''

    def __post_init__(self) -> None:
        self._fill_in()
        self._check_files()
        self._check_numbers()

    def _fill_in(self) -> None:
        """Replace what is not stated by its default, and sequences by tuples."""
        suffix, kind = self.suffix, self.kind
        depth = self.unit is not None
        sharp = depth or self.domain.startswith(('depth', 'segment'))
        defaults = {
            'dir': self.name if self.dir is None else self.dir,
            'suffix': (suffix,) if isinstance(suffix, str) else tuple(suffix),
            'kind': kind or ('depth' if depth else 'domain' if self.domain else 'colour'),
            'interpolation': self.interpolation or ('nearest' if sharp else 'bilinear'),
        }
        for key, value in defaults.items():
            object.__setattr__(self, key, value)
        for key in ('mean', 'std', 'pad'):
            value = getattr(self, key)
            if isinstance(value, Sequence) and not isinstance(value, str):
                object.__setattr__(self, key, tuple(value))

    def _check_files(self) -> None:
        texts = isinstance(self.dir, (str, os.PathLike)) and all(
            isinstance(one, str) for one in self.suffix
        )
        if not texts:
            self._fail(f'has dir {self.dir!r} and suffix {self.suffix!r}', 'state texts')
        if not self.suffix:
            self._fail('has no suffix', "state one, e.g. suffix='.png'")
        for key, value, choices in (
            ('kind', self.kind, KINDS),
            ('interpolation', self.interpolation, INTERPOLATIONS),
        ):
            if value not in choices:
                self._fail(f'has {key} {value!r}', f'choose one of {list(choices)}')
        if (self.kind == 'depth') != (self.unit is not None):
            self._fail(
                f'has kind {self.kind!r} and unit {self.unit!r}',
                "depth needs a unit, e.g. unit='mm', and other kinds have none",
            )
        if (self.kind == 'domain') != bool(self.domain):
            self._fail(
                f'has kind {self.kind!r} and domain {self.domain!r}',
                "state both or neither, e.g. domain='normal'",
            )
        units = list(self.unit.values()) if isinstance(self.unit, Mapping) else [self.unit]
        known = [one in UNITS if isinstance(one, str) else _is_positive(one) for one in units]
        if self.unit is not None and not (known and all(known)):
            self._fail(
                f'has unit {self.unit!r}',
                f'choose one of {list(UNITS)}, or metres per stored number, above 0',
            )

    def _check_numbers(self) -> None:
        mean, std, pad = self.mean, self.std, self.pad
        if mean is not None or std is not None:
            lists = isinstance(mean, tuple) and isinstance(std, tuple) and len(mean) == len(std) > 0
            if not (lists and all(map(_is_finite, mean or ())) and all(map(_is_finite, std or ()))):
                self._fail(
                    f'has mean {mean} and std {std}',
                    'state lists of equal length, one finite number per channel',
                )
            if not all(map(_is_positive, std or ())):
                self._fail(f'has std {std}', 'it must be above 0')
        values = pad if isinstance(pad, tuple) else () if pad is None else (pad,)
        matches = not isinstance(pad, tuple) or mean is None or len(pad) == len(mean)
        if not (matches and all(map(_is_finite, values))):
            self._fail(f'has pad {pad}', 'state one number, or one per channel')

    def _fail(self, fact: str, fix: str) -> None:
        raise ValueError(f'modality {self.name!r} {fact}: {fix}')

    def metres(self, dtype: str) -> float | None:
        """Return metres per stored number of a file of this type, None if no unit is stated."""
        unit = self.unit.get(dtype) if isinstance(self.unit, Mapping) else self.unit
        return UNITS[unit] if isinstance(unit, str) else unit

    @property
    def padding(self) -> Numbers | None:
        """Value of padding, one number or one per channel; None if neither it nor a mean is
        stated."""
        return self.mean if self.pad is None else self.pad


KEYS = [field.name for field in fields(ModalitySpec)]
NUMBERS = ('mean', 'std', 'pad', 'interpolation')  # what does not depend on files


def read_specs(
    given: Any,
    declared: Mapping[str, Mapping[str, Any]] | None = None,
    keys: Iterable[str] = KEYS,
) -> list[ModalitySpec]:
    """Read a ``modalities`` argument.

    Args:
        given: List of dicts of :class:`ModalitySpec`'s arguments, of names, or of both. None takes
            all that are declared.
        declared: Arguments by name that entries of ``given`` may leave out. If there are any, a
            modality that is not among them needs a ``dir``.
        keys: Arguments that matter to the caller; others are ignored.

    Returns:
        The specs, in the order of the streams.

    Raises:
        TypeError: If ``given`` is not a list of dicts and names.
        ValueError: If there is no modality, or an entry has no name, an unknown or a repeated one,
            an unknown key, or an impossible value.

    Examples:
        >>> known = dict(rgb=dict(suffix='.jpg'), depth=dict(unit='mm'))
        >>> [spec.kind for spec in read_specs([dict(name='rgb', pad=0), 'depth'], known)]
        ['colour', 'depth']
    """
    if given is None:
        given = list(declared or ())
    used = set(keys) | {'name'}
    specs = []
    for entry in _entries(given):
        name = entry['name']
        described = len(entry) > 1 and ('dir' in entry or not declared)
        if declared is not None and name not in declared and not described:
            choice = f'choose one of {list(declared)}, or ' if declared else ''
            raise ValueError(
                f'modality {name!r} is unknown{nearest(name, declared)}: {choice}give a dict that '
                f"says where its files are, dict(name='{name}', dir=...)"
            )
        stated = {**(declared or {}).get(name, {}), **entry}
        specs.append(ModalitySpec(**{key: stated[key] for key in stated if key in used}))
    return specs


def modality_names(given: Any) -> list[str]:
    """Return the names of a ``modalities`` argument, in the order of the streams; errors as
    :func:`read_specs`."""
    return [entry['name'] for entry in _entries(given)]


def sources_of(inputs: Sequence[str], pipeline: Sequence[Mapping]) -> dict[str, str]:
    """Return the modality to read for each of a model's inputs: HHA is made of depth."""
    encoders = [t for t in pipeline if t['type'] == 'DepthToHHA']
    made = {t.get('name', 'hha'): t.get('source', 'depth') for t in encoders}
    return {name: made.get(name, name) for name in inputs}


def _entries(given: Any) -> list[Mapping[str, Any]]:
    """Every entry as a dict with a name."""
    example = "modalities=[dict(name='rgb', dir='rgb', suffix='.jpg'), ...]"
    if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence):
        raise TypeError(
            f'modalities is a {type(given).__name__}, {given!r}: give a list, whose order is the '
            f'order of the streams, {example}'
        )
    if not given:
        raise ValueError(f'there is no modality: give {example}')
    entries = [{'name': one} if isinstance(one, str) else one for one in given]
    for entry in entries:
        if not isinstance(entry, Mapping):
            raise TypeError(f'a modality is {entry!r}: give a dict with a name, {example}')
        name = entry.get('name')
        if not isinstance(name, str) or not name:
            raise ValueError(f'modality {dict(entry)} has no name: give {example}')
        check_keys('modality', entry, KEYS)
    check_names([entry['name'] for entry in entries], 'modality')
    return entries


def check_keys(what: str, entry: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise ValueError if an entry of a list of modalities or tasks has an unknown key."""
    for key in entry:
        if key not in known:
            raise ValueError(
                f'{what} {entry["name"]!r} has an unknown key {key!r}{nearest(key, known)}: the '
                f'keys are {list(known)}'
            )


def check_names(names: Sequence[str], what: str) -> None:
    """Raise ValueError if a name is there twice or cannot name a stream or task."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f'{what} {name!r} is listed twice in {list(names)}: list it once')
        if not name.isidentifier() or name in RESERVED:
            raise ValueError(
                f'{what} {name!r} cannot be used as a name: use letters, digits and underscores, '
                f'and none of {list(RESERVED)}'
            )


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a question about the most similar of the known names, or nothing."""
    found = get_close_matches(name, list(known), 1)
    return f' (did you mean {found[0]!r}?)' if found else ''


def _is_finite(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _is_positive(value: Any) -> bool:
    return _is_finite(value) and value > 0
