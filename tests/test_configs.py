"""Every shipped config builds: model, optimizer, schedule, hooks, pipelines; counts come out."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS, PARAM_SCHEDULERS

from mmcen.layers import exchange_norms

CONFIGS = sorted((Path(__file__).parents[1] / 'configs' / 'cen').glob('*.py'))
# FACTS of the official models, in millions, for 40 classes; alpha adds one for each stream
COUNTS = {
    'nyud_refinenet_r50': 99.157,
    'nyud_refinenet_r101': 118.202,
    'nyud_refinenet_r152': 133.891,
    'nyud_refinenet_r101_rgb': 118.096,
    'nyud_refinenet_r101_depth': 118.096,
    'nyud_refinenet_r101_noexchange': 118.202,
    'nyud_refinenet_r101_official': 118.202,
}


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_builds(path):
    cfg = Config.fromfile(path)
    assert cfg.custom_imports.imports == ['mmcen']
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    schedulers = cfg.param_scheduler
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        scheduler.setdefault('end', cfg.train_cfg.max_epochs)  # as mmengine's runner does
        PARAM_SCHEDULERS.build(scheduler, default_args=dict(optimizer=wrapper, epoch_length=10))
    for hook in cfg.custom_hooks:
        HOOKS.build(hook)
    METRICS.build(cfg.val_evaluator)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        dataset = DATASETS.build({**loader.dataset, 'lazy_init': True})
        assert len(dataset.metainfo['classes']) == cfg.model.decode_head.num_classes
    if 'tta_pipeline' in cfg:
        Compose(cfg.tta_pipeline)
    streams = list(cfg.model.data_preprocessor.modalities)
    exchanging = len(dict(exchange_norms(model)))
    bottlenecks = {18: 16, 50: 16, 101: 33, 152: 50}[cfg.model.backbone.depth]
    alone = len(streams) == 1 or 'noexchange' in path.stem
    assert exchanging == (0 if alone else bottlenecks)
    if path.stem in COUNTS:
        count = sum(p.numel() for p in model.parameters()) / 1e6
        assert count == pytest.approx(COUNTS[path.stem], abs=1e-3)


def test_official_config_is_the_official_code():
    """Exchange everywhere, penalty on the disjoint parts, the code's learning rates."""
    cfg = Config.fromfile(next(p for p in CONFIGS if p.stem.endswith('official')))
    with torch.device('meta'):
        norms = dict(exchange_norms(MODELS.build(cfg.model)))
    assert all(n.threshold == 2e-2 and n.grid.size == 2 for n in norms.values())
    cfg.model.backbone.depth = 50
    norms = dict(exchange_norms(MODELS.build(cfg.model)))
    for norm in norms.values():
        assert norm.exchangeable.all()
        assert norm.penalised.sum() == norm.num_features
    assert cfg.param_scheduler.rates == [[5e-4, 2.5e-4, 1e-4], [3e-3, 1.5e-3, 7e-4]]
