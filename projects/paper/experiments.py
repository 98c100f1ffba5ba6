"""Make the config of a row of a table, for the paper's data or smaller ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config

from . import rivals  # noqa: F401  (registers)

OWN = Path(__file__).with_name('configs')
CONFIGS = OWN.parents[2] / 'configs' / 'cen'
SEGMENTATION, TRANSLATION, SALIENCY = 'segmentation', 'translation', 'saliency'
# Config whose data, schedule and sizes are used, by kind of run; a run on its own data set needs
# none. A fusion baseline uses the config of its fusion if there is one, with settings for fusion
# after all stages.
DATASETS: dict[str, dict[str, str]] = {
    'synthetic': {
        SEGMENTATION: 'rooms_segmentation.py',
        TRANSLATION: 'rooms_translation.py',
        SALIENCY: 'saliency_rooms_lwrefinenet_r18.py',
    },
    'nyuv2': {TRANSLATION: 'nyuv2_rgb-edge_to_depth.py'},
    'nyuv2-cpu': {SEGMENTATION: 'nyud_lwrefinenet_r18_cpu.py'},
    'nyuv2-efflite0': {
        SEGMENTATION: 'nyud_lwrefinenet_efflite0.py',
        'ConcatFusion': 'efflite0_concat.py',
        'SelfAttentionFusion': 'efflite0_selfatt.py',
    },
    'sunrgbd': {},
    'taskonomy': {},
    'rgbd-saliency': {},
}
# by the first word of a config's name
HOMES = {
    'nyud': 'nyuv2',
    'sunrgbd': 'sunrgbd',
    'taskonomy.py': 'taskonomy',
    'saliency': 'rgbd-saliency',
}
# Taskonomy's names of the words that the tables use
DOMAINS = {
    'depth': 'depth_euclidean',
    'shade': 'reshading',
    'texture': 'edge_texture',
    'edge': 'edge_occlusion',
    'semseg': 'segment_semantic',
    'curve': 'principal_curvature',
}
# Parts of a backbone that a fusion layer may follow, from the finest
STAGES = {
    'CENResNet': [f'layer{i}' for i in (1, 2, 3, 4)],
    'CENTIMMBackbone': [f'timm_model.blocks.{i}' for i in (1, 2, 4, 6)],
}
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
EVALUATORS = ('val_evaluator', 'test_evaluator')
SCHEDULE = ('param_scheduler', 'train_cfg', 'val_cfg', 'test_cfg', 'default_hooks')
FEATURE_METRICS = {'FID', 'KID'}


@dataclass(frozen=True)
class FusionSpec:
    """A fusion baseline of Tables 2 and 4.

    Args:
        type: Type of the layer, such as ConcatFusion.
        stage: 'early', 'middle', 'late' or 'all'.
        merge: Whether there is one network after the fusion, the commonly used setting.
    """

    type: str
    stage: str
    merge: bool


@dataclass(frozen=True)
class Run:
    """One training: a shipped config and the changes of a row.

    Args:
        config: File name in configs/cen/ or in the folder ``configs`` here.
        options: Changes with dotted keys, as in --cfg-options.
        fusion: Fusion instead of exchange.
        times: Factors for ``lambda`` and ``theta`` of the config.
        case: For Taskonomy, ``INPUTS_to_TARGETS`` or ``cycle_DOMAINS``, such as
            ``rgb-depth_to_normal``.
        modalities: Names of the modalities that the model takes; empty for all.
    """

    config: str
    options: Mapping[str, Any] = field(default_factory=dict)
    fusion: FusionSpec | None = None
    times: Mapping[str, float] = field(default_factory=dict)
    case: str = ''
    modalities: tuple[str, ...] = ()

    @property
    def home(self) -> str:
        """The data set of the config."""
        return HOMES[self.config.partition('_')[0]]

    @property
    def kind(self) -> str:
        kinds = {'taskonomy': TRANSLATION, 'rgbd-saliency': SALIENCY}
        return kinds.get(self.home, SEGMENTATION)

    def fits(self, dataset: str) -> bool:
        return dataset == self.home or self.kind in DATASETS[dataset]


def load(run: Run, dataset: str, extractor: str | None = None) -> Config:
    """Return the config of a run on a data set.

    Args:
        run: Training.
        dataset: A key of :data:`DATASETS`.
        extractor: Inception weights; without them FID and KID are left out. MAE and RMSE are
            measured for every task.

    Raises:
        ValueError: If the data set does not support this kind of run.
    """
    if not run.fits(dataset):
        raise ValueError(f'{dataset} does not support the {run.kind} of {run.config}')
    cfg = config_of(run)
    if dataset != run.home:
        lenders = DATASETS[dataset]
        lender = lenders.get(run.fusion.type if run.fusion else '', lenders[run.kind])
        small = _read(lender)
        cfg = (_small_translator if run.kind == TRANSLATION else _small_segmenter)(cfg, small)
        if run.kind != TRANSLATION:
            cfg.merge_from_dict(deepcopy(dict(run.options)))
    if run.kind == TRANSLATION:
        _choose_metrics(cfg, extractor)
    if run.fusion is not None:
        (_fuse_backbone if 'backbone' in cfg.model else _fuse_generator)(cfg, run.fusion)
    for hook in cfg.custom_hooks:
        if hook['type'] == 'SparsityHook':
            hook['coefficient'] *= run.times.get('lambda', 1)
    if 'theta' in run.times:
        exchange = cfg.model.get('exchange') or cfg.model.network.norm_cfg
        exchange['threshold'] *= run.times['theta']
    cfg.custom_imports = dict(imports=['mmcen', 'projects.paper.rivals'])
    return cfg


def config_of(run: Run) -> Config:
    """The config of a run on the data of the paper, with its modalities, tasks and options."""
    cfg = _read(run.config)
    if run.case:
        _add_case(cfg, run.case)
    if run.modalities:
        preprocessor = cfg.model.data_preprocessor
        preprocessor.modalities = [m for m in preprocessor.modalities if m.name in run.modalities]
    cfg.merge_from_dict(deepcopy(dict(run.options)))  # mmengine takes _delete_ out of it
    return cfg


def _read(name: str) -> Config:
    own = OWN / name
    return deepcopy(_read_file(own if own.is_file() else CONFIGS / name))


@cache  # hundreds of rows are made from about twenty files
def _read_file(path: Path) -> Config:
    return Config.fromfile(path)


def _add_case(cfg: Config, case: str) -> None:
    """Tasks, domains and metrics of a case."""

    def names(words: str) -> list[str]:
        return [DOMAINS.get(word, word) for word in words.split('-')]

    if case.startswith('cycle_'):
        domains = names(case.removeprefix('cycle_'))
        inputs = {task: [d for d in domains if d != task] for task in reversed(domains)}
    else:
        given, targets = map(names, case.split('_to_'))
        domains, inputs = given + targets, dict.fromkeys(targets, given)
    cfg.model.tasks = [dict(name=task, inputs=of_task) for task, of_task in inputs.items()]
    for key in LOADERS:
        cfg[key].dataset.modalities = domains
    for key in EVALUATORS:
        cfg[key].metrics = {t: ['FID', 'KID'] if t == 'rgb' else ['MAE', 'RMSE'] for t in inputs}


def _fuse_backbone(cfg: Config, fusion: FusionSpec) -> None:
    """Fuse after stages 2, 3, 4, or after all."""
    stages = STAGES[cfg.model.backbone.type]
    after = dict(early=stages[1:2], middle=stages[2:3], late=stages[3:], all=stages)
    under_budget = 'budget' in (cfg.model.get('exchange') or {})
    cfg.model['type'] = 'FusionEncoderDecoder'
    if not under_budget:  # else the streams exchange as well
        cfg.model['exchange'] = {}
    _add_fusion(fusion, cfg.model, after[fusion.stage])


def _fuse_generator(cfg: Config, fusion: FusionSpec) -> None:
    """Fuse after layers 1, 4, 8 of a U-Net-256, or after all."""
    last = cfg.model.network.get('downs', 8)
    after = dict(early=(1,), middle=(last // 2,), late=(last,), all=tuple(range(1, last + 1)))
    cfg.model.type, cfg.model.network.type = 'FusionTranslator', 'FusionUNet'
    _add_fusion(fusion, cfg.model.network, after[fusion.stage])


def _add_fusion(fusion: FusionSpec, owner: Any, after: Sequence) -> None:
    merge = fusion.merge
    if fusion.type == 'AlignFusion' and merge:  # keeps two whole networks
        owner['convs'], merge = 'private', False
    made = dict(type=fusion.type, after=after, merge=merge)
    owner['fusion'] = {**owner.get('fusion', {}), **made}


def _small_segmenter(cfg: Config, small: Config) -> Config:
    """The small config, with the row's modalities and its settings of exchange."""
    lent = {spec.name: spec for spec in small.model.data_preprocessor.modalities}
    kept = [lent[spec.name] for spec in cfg.model.data_preprocessor.modalities]
    small.model.data_preprocessor.modalities = kept
    small.model.exchange = cfg.model.exchange
    return small


def _small_translator(cfg: Config, small: Config) -> Config:
    """The row's model, with the sizes, the data and the schedule of the small config."""
    metrics, domains = cfg.val_evaluator.metrics, cfg.train_dataloader.dataset.modalities
    sizes = {key: small.model.network[key] for key in ('downs', 'base_channels')}
    cfg.model.network.update(sizes)
    cfg.model.discriminator = small.model.discriminator
    if 'consistency' in cfg.model:
        cfg.model.consistency.network.downs = sizes['downs']
    for key in (*LOADERS, *EVALUATORS, *SCHEDULE):
        cfg[key] = small[key]
    for key in LOADERS:
        cfg[key].dataset.modalities = domains
    for key in EVALUATORS:
        cfg[key].metrics = metrics
    # parts that the small schedule does not know, such as AdaShare's policy, keep their own
    own = {key: part for key, part in cfg.optim_wrapper.items() if key not in small.optim_wrapper}
    cfg.optim_wrapper = {**small.optim_wrapper, **own}
    lent = {hook['type']: hook for hook in small.custom_hooks}
    cfg.custom_hooks = [lent.get(hook['type'], hook) for hook in cfg.custom_hooks]
    return cfg


def _choose_metrics(cfg: Config, extractor: str | None) -> None:
    """MAE and RMSE of every image task; FID and KID as the row asks, where there are weights."""
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        for task, names in evaluator.metrics.items():
            of_features = [name for name in names if name in FEATURE_METRICS]
            evaluator.metrics[task] = ['MAE', 'RMSE', *(of_features if extractor else ())]
        evaluator.pop('extractor', None)
        if extractor:
            evaluator.extractor = extractor
