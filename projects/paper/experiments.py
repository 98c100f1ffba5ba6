"""From a row of a table to the config that is trained, on the paper's data or on smaller ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'cen'
SEGMENTATION, TRANSLATION, SALIENCY = 'segmentation', 'translation', 'saliency'
# Config that lends its data, schedule and sizes by kind of run; a run on its home needs none.
# A fusion baseline takes the one of its fusion where there is one, with what was found for it
# after all stages.
DATASETS: dict[str, dict[str, str]] = {
    'synthetic': {
        SEGMENTATION: '../../projects/paper/configs/rooms_segmentation.py',
        TRANSLATION: '../../projects/paper/configs/rooms_translation.py',
        SALIENCY: 'saliency_rooms_lwrefinenet_r18.py',
    },
    'nyuv2': {TRANSLATION: 'nyuv2_rgb-edge_to_depth.py'},
    'nyuv2-cpu': {SEGMENTATION: 'nyud_lwrefinenet_r18_cpu.py'},
    'nyuv2-efflite0': {
        SEGMENTATION: 'nyud_lwrefinenet_efflite0.py',
        'ConcatFusion': 'nyud_lwrefinenet_efflite0_concat.py',
        'SelfAttentionFusion': 'nyud_lwrefinenet_efflite0_selfatt.py',
    },
    'sunrgbd': {},
    'taskonomy': {},
    'rgbd-saliency': {},
}
# by the first word of a config's name
HOMES = {
    'nyud': 'nyuv2',
    'sunrgbd': 'sunrgbd',
    'taskonomy': 'taskonomy',
    'saliency': 'rgbd-saliency',
}
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
EVALUATORS = ('val_evaluator', 'test_evaluator')
SCHEDULE = ('param_scheduler', 'train_cfg', 'val_cfg', 'test_cfg', 'default_hooks')
FEATURE_METRICS = {'FID', 'KID'}


@dataclass(frozen=True)
class Fusion:
    """A fusion baseline of Tables 2 and 4.

    Args:
        type: of the layer, such as ConcatFusion.
        stage: 'early', 'middle', 'late' or 'all'.
        merge: the commonly used setting, one network after the fusion.
    """

    type: str
    stage: str
    merge: bool


@dataclass(frozen=True)
class Run:
    """One training: a config of configs/cen/ and what a row changes in it.

    Args:
        config: file name.
        options: as --cfg-options, dotted keys.
        fusion: in place of exchange.
        times: ``lambda`` and ``theta``, factors on the config's own.
    """

    config: str
    options: Mapping[str, Any] = field(default_factory=dict)
    fusion: Fusion | None = None
    times: Mapping[str, float] = field(default_factory=dict)

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
    """The config of a run on a data set.

    Args:
        run: what to train.
        dataset: a key of :data:`DATASETS`.
        extractor: Inception weights; without them FID and KID are left out. MAE and RMSE are
            measured for every task.

    Raises:
        ValueError: the data set does not serve this kind of run.
    """
    if not run.fits(dataset):
        raise ValueError(f'{dataset} does not serve the {run.kind} of {run.config}')
    cfg = Config.fromfile(CONFIGS / run.config)
    if dataset != run.home:
        lenders = DATASETS[dataset]
        lender = lenders.get(run.fusion.type if run.fusion else '', lenders[run.kind])
        small = Config.fromfile(CONFIGS / lender)
        cfg = (_small_translator if run.kind == TRANSLATION else _small_segmenter)(cfg, small)
    if run.kind == TRANSLATION:
        _choose_metrics(cfg, extractor)
    if run.fusion is not None:
        _fuse(cfg, run.fusion)
    for hook in cfg.custom_hooks:
        if hook['type'] == 'SparsityHook':
            hook['coefficient'] *= run.times.get('lambda', 1)
    norm_cfg = (cfg.model.get('backbone') or cfg.model.network).norm_cfg
    if 'theta' in run.times:
        norm_cfg.threshold *= run.times['theta']
    cfg.merge_from_dict(dict(run.options))
    return cfg


def _fuse(cfg: Config, fusion: Fusion) -> None:
    """Fuse after stages 2, 3, 4 of a ResNet or layers 1, 4, 8 of a U-Net-256, or after all."""
    if 'backbone' in cfg.model:
        places = dict(early=(2,), middle=(3,), late=(4,), all=(1, 2, 3, 4))
        owner, encoder = cfg.model, cfg.model.backbone
        encoder.norm_cfg.exchange = False
    else:
        owner = cfg.model.network
        last = owner.get('downs', 8)
        places = dict(early=(1,), middle=(last // 2,), late=(last,), all=tuple(range(1, last + 1)))
        owner.setdefault('encoder', {})  # what it returns is not what it keeps
        encoder = owner.encoder
        encoder['exchange'] = False
    merge = fusion.merge
    if fusion.type == 'AlignFusion' and merge:  # keeps two whole networks
        owner['convs'], merge = 'private', False
    made = dict(type=fusion.type, after=places[fusion.stage], merge=merge)
    encoder['fusion'] = {**encoder.get('fusion', {}), **made}


def _small_segmenter(cfg: Config, small: Config) -> Config:
    """The small config, with the row's modalities and its settings of exchange."""
    lent = {spec.name: spec for spec in small.model.data_preprocessor.modalities}
    kept = [lent[spec.name] for spec in cfg.model.data_preprocessor.modalities]
    small.model.data_preprocessor.modalities = kept
    small.model.backbone.norm_cfg = cfg.model.backbone.norm_cfg
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
