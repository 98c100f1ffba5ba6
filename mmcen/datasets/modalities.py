"""What a named modality is on disk: its folder, its suffix, its kind and its unit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .encodings import encoding_of

# colour: 8-bit, three channels. depth: one channel, turned into metres. domain: one of Taskonomy's,
# turned into physical units. raw: taken as stored.
KINDS = ('colour', 'depth', 'domain', 'raw')


@dataclass(frozen=True)
class ModalitySpec:
    """One modality of a data set.

    Args:
        dir: its folder, below the data root.
        suffix: what follows the frame's name, or several to take whichever is there.
        kind: ``'colour'``, ``'depth'``, ``'domain'`` or ``'raw'``.
        metres_per_unit: for depth, metres per stored unit by storage dtype, e.g.
            ``dict(uint16=0.001)`` for 16-bit millimetres; a dtype that is not in it is refused.
        domain: for a domain, its name in :data:`~mmcen.datasets.encodings.ENCODINGS`.
        fit: resize it, bilinearly, to the other modalities when it is loaded; without, another size
            is an error. For sets that are aligned but stored at two sizes.

    Raises:
        ValueError: unknown kind, no suffix, or depth without a unit.
    """

    dir: str
    suffix: str | Iterable[str] = '.png'
    kind: str = 'colour'
    metres_per_unit: Mapping[str, float] = field(default_factory=dict)
    domain: str = ''
    fit: bool = False

    def __post_init__(self) -> None:
        suffixes = (self.suffix,) if isinstance(self.suffix, str) else tuple(self.suffix)
        object.__setattr__(self, 'suffix', suffixes)
        if not suffixes:
            raise ValueError(f"modality folder {self.dir!r} has no suffix: name one, e.g. '.png'")
        if self.kind not in KINDS:
            raise ValueError(
                f'kind {self.kind!r} of modality folder {self.dir!r} is unknown: '
                f'choose one of {list(KINDS)}'
            )
        if self.kind == 'domain':
            encoding_of(self.domain)
        if self.kind == 'depth' and not self.metres_per_unit:
            raise ValueError(
                f'depth folder {self.dir!r} has no unit: declare it per storage dtype, '
                'e.g. metres_per_unit=dict(uint16=0.001) for millimetres'
            )

    @property
    def info(self) -> dict:
        """What loading one file of it has to know."""
        return {
            'kind': self.kind,
            'metres_per_unit': dict(self.metres_per_unit),
            'domain': self.domain,
            'fit': self.fit,
        }


def choose_modalities(
    wanted: Mapping[str, Mapping] | Iterable[str] | None,
    declared: Mapping[str, Mapping],
) -> tuple[list[str], dict[str, ModalitySpec]]:
    """Read a data set's ``modalities`` argument.

    Args:
        wanted: a mapping declares modalities anew; names choose among the declared ones, in the
            order given, which is the order of the streams; ``None`` takes all declared ones.
        declared: what the data set's class declares.

    Returns:
        All declared names, and the chosen modalities by name in stream order.

    Raises:
        ValueError: no modality, an unknown or repeated name, or a declaration that does not hold.
        TypeError: a declaration is not a mapping of :class:`ModalitySpec`'s arguments.
    """
    if isinstance(wanted, Mapping):
        declared, names = wanted, list(wanted)
    else:
        names = list(
            declared if wanted is None else [wanted] if isinstance(wanted, str) else wanted
        )
    if not names:
        raise ValueError(
            'no modality: declare some, e.g. modalities=dict(rgb=dict(dir="rgb", suffix=".jpg"))'
        )
    for name in names:
        if name not in declared:
            raise ValueError(f'unknown modality {name!r}: the known ones are {list(declared)}')
        if names.count(name) > 1:
            raise ValueError(f'modality {name!r} is listed twice in {names}: list it once')
    return list(declared), {name: _read_spec(name, declared[name]) for name in names}


def _read_spec(name: str, spec: Mapping) -> ModalitySpec:
    try:
        return ModalitySpec(**spec)
    except TypeError as error:
        raise TypeError(
            f'modality {name!r} is declared as {spec!r} ({error}): '
            'give dir, suffix, kind and metres_per_unit'
        ) from error
