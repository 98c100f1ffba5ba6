"""From a user's own files to what a model is given, as its config says for the test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.dataset import Compose
from mmengine.registry import DATASETS

from ..datasets.encodings import ENCODINGS
from ..datasets.modalities import ModalitySpec

# where the data set does not say: whole numbers are millimetres, others metres
METRES_PER_UNIT = {'uint16': 0.001, 'int32': 0.001, 'float32': 1.0, 'float64': 1.0}
LOADERS = (
    'LoadModalities', 'LoadLabel', 'LoadMask', 'LoadPseudoLabel', 'LoadAnnotations',
    'LoadImageFromFile',
)  # fmt: skip


@dataclass(frozen=True)
class Loading:
    """How files become inputs.

    Attributes:
        modalities: to read, in the order of the model's inputs.
        info: of each, what reading its files has to know: kind, unit, domain.
        pipeline: from a sample that names the files to the packed inputs.
    """

    modalities: list[str]
    info: dict[str, dict]
    pipeline: Compose

    @property
    def takes_depth(self) -> bool:
        """Whether a modality is depth in a unit."""
        return any(map(_of_depth, self.info.values()))


def find_test_set(cfg: Mapping) -> dict[str, Any]:
    """Of a config's test set, or the first of several: pipeline, size, and what its config or its
    class declares of modalities and classes."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    while 'datasets' in dataset or 'dataset' in dataset:  # in a wrapper
        dataset = dataset['datasets'][0] if 'datasets' in dataset else dataset['dataset']
    kind = DATASETS.get(dataset['type']) if 'type' in dataset else None
    declared = dataset.get('modalities')
    if not isinstance(declared, Mapping):
        declared = getattr(kind, 'MODALITIES', {})
    of_class = getattr(kind, 'METAINFO', {})
    return {key: dataset[key] for key in ('pipeline', 'size') if key in dataset} | {
        'modalities': declared,
        'metainfo': {**of_class, **(dataset.get('metainfo') or {})},
    }


def find_loading(
    test_set: Mapping[str, Any],
    inputs: Sequence[str],
    depth_unit: float | None = None,
    size: tuple[int, int] | None = None,
) -> Loading:
    """The test pipeline, for files without a label.

    Args:
        test_set: of :func:`find_test_set`.
        inputs: modalities that the network takes.
        depth_unit: metres per stored unit of depth files; None as the test set declares it.
        size: (height, width) that the model gets; None what it was tested at.
    """
    stages = [
        t for t in test_set.get('pipeline') or [dict(type='PackModalities')]
        if t['type'] not in LOADERS
    ]  # fmt: skip
    modalities = _to_read(inputs, stages)
    encoded = any(t['type'] == 'EncodeDomains' for t in stages)
    declared = test_set['modalities']
    info = {name: _info(name, declared.get(name), encoded, depth_unit) for name in modalities}
    if size is not None:
        stages = [t for t in stages if not _resizes(t)]
    elif not any(_resizes(t) for t in stages) and 'size' in test_set:
        size = tuple(test_set['size'])  # rendered: the frames are as large as the data set says
    load: list[dict] = [dict(type='LoadModalities')]
    if size is not None:
        load.append(_resize(size, info))
    names = (*modalities, *inputs)
    pipeline = Compose([*load, *(_only_inputs(t, names) for t in stages)])
    return Loading(modalities, info, pipeline)


def _to_read(inputs: Sequence[str], stages: Sequence[Mapping]) -> list[str]:
    """Modalities to read for a model's inputs, in their order: HHA is made of depth."""
    encoders = [t for t in stages if t['type'] == 'DepthToHHA']
    made = {t.get('name', 'hha'): t.get('source', 'depth') for t in encoders}
    return list(dict.fromkeys(made.get(name, name) for name in inputs))


def _info(
    name: str, declared: Mapping | None, encoded: bool, depth_unit: float | None
) -> dict[str, Any]:
    """Kind and unit of a modality's files."""
    if declared is not None:
        info = ModalitySpec(**declared).info
    elif name == 'rgb':
        info = dict(kind='colour', metres_per_unit={}, domain='')
    elif name in ENCODINGS and encoded:
        info = dict(kind='domain', metres_per_unit={}, domain=name)
    elif name == 'depth' or name.startswith('depth_'):
        info = dict(kind='depth', metres_per_unit=METRES_PER_UNIT, domain='')
    else:
        info = dict(kind='raw', metres_per_unit={}, domain='')
    if _of_depth(info) and depth_unit is not None:
        dtypes = ('uint8', 'uint16', 'int32', 'float32', 'float64')
        info = dict(info, kind='depth', metres_per_unit=dict.fromkeys(dtypes, depth_unit))
    return info


def _of_depth(info: Mapping[str, Any]) -> bool:
    return info['kind'] == 'depth' or info['domain'].startswith('depth_')


def _resizes(transform: Mapping) -> bool:
    inner = transform.get('transforms') or []
    return transform['type'] == 'ForEachModality' and any(t['type'] == 'Resize' for t in inner)


def _resize(size: tuple[int, int], info: Mapping[str, Mapping]) -> dict:
    """To a size, by what does least harm to each kind."""
    modes = {
        name: 'nearest' if _of_depth(one) or one['domain'].startswith('segment_') else 'area'
        for name, one in info.items()
    }
    return dict(
        type='ForEachModality',
        transforms=[dict(type='Resize', scale=(size[1], size[0]))],
        interpolation=modes,
    )


def _only_inputs(transform: Mapping, names: Sequence[str]) -> dict:
    """A stage that names an interpolation for each modality, for these: those that are targets
    alone are not there."""
    kept = dict(transform)
    if kept['type'] == 'ForEachModality' and kept.get('interpolation'):
        kept['interpolation'] = {**dict.fromkeys(names, 'nearest'), **kept['interpolation']}
    return kept
