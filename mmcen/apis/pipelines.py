"""Load a user's files as the test set of a config loads its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmengine.dataset import Compose
from mmengine.registry import DATASETS

from ..datasets.encodings import ENCODINGS
from ..modalities import ModalitySpec, read_specs, sources_of

# if the data set declares no unit: integers are millimetres, floating point is metres
UNIT = {'uint16': 'mm', 'int32': 'mm', 'float32': 'm', 'float64': 'm'}
FILE_KEYS = {'dir', 'suffix', 'kind', 'unit', 'domain'}
LOADERS = (
    'LoadModalities', 'LoadLabel', 'LoadMask', 'LoadPseudoLabel', 'LoadAnnotations',
    'LoadImageFromFile',
)  # fmt: skip


@dataclass(frozen=True)
class Loading:
    """How files become inputs.

    Attributes:
        modalities: Modalities to read, in the order of the model's inputs.
        info: Description of each modality.
        pipeline: Transforms from a sample with file names to packed inputs. It works on any of the
            modalities.
        sources: Modality that each of the model's inputs is made of.
    """

    modalities: list[str]
    info: dict[str, ModalitySpec]
    pipeline: Compose
    sources: dict[str, str]

    @property
    def takes_depth(self) -> bool:
        """Whether a modality is depth in a unit."""
        return any(map(_of_depth, self.info.values()))


def find_test_set(cfg: Mapping) -> dict[str, Any]:
    """Return pipeline, size, modalities and metainfo of a config's test set, or of the first.

    Modalities and metainfo are those that the config or the class of the data set declares.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    while 'datasets' in dataset or 'dataset' in dataset:  # in a wrapper
        dataset = dataset['datasets'][0] if 'datasets' in dataset else dataset['dataset']
    kind = DATASETS.get(dataset['type']) if 'type' in dataset else None
    of_class = getattr(kind, 'METAINFO', {})
    return {key: dataset[key] for key in ('pipeline', 'size') if key in dataset} | {
        'modalities': _declared(kind, dataset.get('modalities')),
        'metainfo': {**of_class, **(dataset.get('metainfo') or {})},
    }


def _declared(kind: Any, given: Any) -> list[dict]:
    """Return the modalities whose files a data set describes, in its class or its config."""
    declared = {name: dict(spec) for name, spec in getattr(kind, 'MODALITIES', {}).items()}
    for entry in given or ():
        described = isinstance(entry, Mapping) and not FILE_KEYS.isdisjoint(entry)
        if described or (isinstance(entry, Mapping) and entry['name'] in declared):
            declared[entry['name']] = {**declared.get(entry['name'], {}), **entry}
    return [{**spec, 'name': name} for name, spec in declared.items()]


def find_loading(
    test_set: Mapping[str, Any],
    inputs: Sequence[str],
    depth_unit: float | None = None,
    size: tuple[int, int] | None = None,
    empty: str = 'use',
) -> Loading:
    """Make the test pipeline load files without a label.

    Args:
        test_set: Result of :func:`find_test_set`.
        inputs: Modalities that the network takes.
        depth_unit: Metres per stored unit of depth files; None for the unit of the test set.
        size: (height, width) that the model gets; None for the size of the test.
        empty: As in :class:`~mmcen.datasets.transforms.LoadModalities`.
    """
    stages = [
        t
        for t in without_loaders(test_set.get('pipeline'))
        if t['type'] != 'DepthToHHA' or t.get('name', 'hha') in inputs
    ]
    sources = sources_of(inputs, stages)
    modalities = list(dict.fromkeys(sources.values()))
    encoded = any(t['type'] == 'EncodeDomains' for t in stages)
    declared = {entry['name']: entry for entry in test_set['modalities']}
    info = {name: _info(name, declared.get(name), encoded, depth_unit) for name in modalities}
    if size is not None:
        stages = [t for t in stages if not _resizes(t)]
    elif not any(_resizes(t) for t in stages) and 'size' in test_set:
        size = tuple(test_set['size'])  # rendered data sets state their size
    load: list[dict] = [dict(type='LoadModalities', empty=empty)]
    if size is not None:
        resize = dict(type='Resize', scale=(size[1], size[0]))
        load.append(dict(type='ForEachModality', transforms=[resize]))
        info = {name: _for_resizing(spec) for name, spec in info.items()}
    return Loading(modalities, info, Compose([*load, *stages]), sources)


def without_loaders(pipeline: Sequence[Mapping] | None) -> list[Mapping]:
    """Remove the transforms that load files; an empty pipeline becomes packing only."""
    return [t for t in pipeline or [dict(type='PackModalities')] if t['type'] not in LOADERS]


def _info(
    name: str, declared: Mapping | None, encoded: bool, depth_unit: float | None
) -> ModalitySpec:
    """Describe a modality's files by the data set, or else by its name."""
    if declared is not None:
        (spec,) = read_specs([declared])
    elif name == 'rgb':
        spec = ModalitySpec(name)
    elif name in ENCODINGS and encoded:
        spec = ModalitySpec(name, domain=name)
    elif name == 'depth' or name.startswith('depth_'):
        spec = ModalitySpec(name, unit=UNIT)
    else:
        spec = ModalitySpec(name, kind='raw')
    if _of_depth(spec) and depth_unit is not None:
        return replace(spec, kind='depth', domain='', unit=depth_unit)
    return spec


def _of_depth(spec: ModalitySpec) -> bool:
    return spec.kind == 'depth' or spec.domain.startswith('depth_')


def _resizes(transform: Mapping) -> bool:
    inner = transform.get('transforms') or []
    return transform['type'] == 'ForEachModality' and any(t['type'] == 'Resize' for t in inner)


def _for_resizing(spec: ModalitySpec) -> ModalitySpec:
    """Resize by area interpolation, which loses no detail, unless values must not be mixed."""
    return spec if spec.interpolation == 'nearest' else replace(spec, interpolation='area')
