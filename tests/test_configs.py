"""Every shipped config builds: model, optimizer, schedule, hooks, pipelines; counts come out."""

from contextlib import nullcontext as ok
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS, PARAM_SCHEDULERS

from mmcen.core import exchange_norms
from tests.optional import need_mmagic

CONFIGS = sorted((Path(__file__).parents[1] / 'configs' / 'cen').glob('*.py'))
# FACTS of the official models, in millions, for 40 classes; alpha adds one for each stream
COUNTS = {
    'nyud_refinenet_r50': 99.157,
    'nyud_refinenet_r101': 118.202,
    'nyud_refinenet_r152': 133.891,
    'nyud_refinenet_r101_official': 118.202,
}


TRANSLATION = [path for path in CONFIGS if 'network' in path.read_text() or '_to_' in path.stem]
SEGMENTATION = [path for path in CONFIGS if path not in TRANSLATION]


def build_training(cfg):
    """Model (no memory), optimizers, schedules, hooks and data sets as the runner builds them."""
    assert cfg.custom_imports.imports[0] == 'mmcen'
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    schedulers = cfg.get('param_scheduler', [])
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        scheduler.setdefault('end', cfg.train_cfg.max_epochs)  # as mmengine's runner does
        for one in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
            PARAM_SCHEDULERS.build(scheduler, default_args=dict(optimizer=one, epoch_length=10))
    for hook in cfg.custom_hooks:
        HOOKS.build(hook)
    loaders = (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
    datasets = [DATASETS.build({**loader.dataset, 'lazy_init': True}) for loader in loaders]
    return model, datasets


@pytest.mark.parametrize('path', SEGMENTATION, ids=lambda path: path.stem)
def test_segmentation_builds(path):
    if 'efflite0' in path.stem:
        pytest.importorskip('timm')
    cfg = Config.fromfile(path)
    model, datasets = build_training(cfg)
    METRICS.build(cfg.val_evaluator)
    for dataset in datasets:
        assert len(dataset.metainfo['classes']) == cfg.model.decode_head.num_classes
    if 'tta_pipeline' in cfg:
        Compose(cfg.tta_pipeline)
    streams = list(cfg.model.data_preprocessor.modalities)
    exchanging = len(dict(exchange_norms(model)))
    first = next(m for m in model.backbone.modules() if isinstance(m, torch.nn.Conv2d))
    mean = model.data_preprocessor.mean  # of the channels that each stream gets
    assert len(mean) == len(streams) * first.in_channels
    blocks = {18: 16, 50: 16, 101: 33, 152: 50, None: 16}[cfg.model.backbone.get('depth')]
    assert exchanging == blocks
    if path.stem in COUNTS:
        count = sum(p.numel() for p in model.parameters()) / 1e6
        assert count == pytest.approx(COUNTS[path.stem], abs=1e-3)


WORDS = dict(
    shade='reshading',
    texture='edge_texture',
    edge='edge_occlusion',
    semseg='segment_semantic',
    curve='principal_curvature',
)


def domains_of(words, depth):
    return [depth if word == 'depth' else WORDS.get(word, word) for word in words.split('-')]


@pytest.mark.parametrize('path', TRANSLATION, ids=lambda path: path.stem)
def test_translation_builds(path):
    """Also: the name says the domains, the data set has them, and counts are the paper's."""
    need_mmagic()
    cfg = Config.fromfile(path)
    model, datasets = build_training(cfg)
    for dataset in datasets:
        assert set(model.names) <= set(dataset.modalities)
    evaluators = cfg.val_evaluator
    for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
        metrics = evaluator.get('metrics', {})
        assert set(metrics) <= set(model.plan.tasks)
        if 'extractor' in evaluator:
            with pytest.raises(FileNotFoundError, match='inception') if has_fid(metrics) else ok():
                METRICS.build({**evaluator})
            evaluator['extractor'] = torch.nn.Identity()
        METRICS.build(evaluator)
    depth = next((name for name in model.names if name.startswith('depth')), None)
    name = path.stem.partition('_')[2]
    if name.startswith('cycle'):
        three = domains_of(name.split('_')[1], depth)
        wanted = {t: tuple(i for i in three if i != t) for t in reversed(three)}
        assert model.plan.tasks == wanted
    else:
        inputs, _, targets = name.partition('_to_')
        inputs, targets = domains_of(inputs, depth), domains_of(targets.split('_')[0], depth)
        assert model.plan.tasks == dict.fromkeys(targets, tuple(inputs))
    check_exchange(model, name)


def has_fid(metrics):
    return any('FID' in names for names in metrics.values())


def check_exchange(model, name):
    """Along the modalities in the encoder, along the tasks in the decoder."""
    wanted = set()
    if len(model.plan.tasks) > 1 and not name.startswith('cycle'):
        wanted.add('tasks')
    if model.plan.grid.modalities > 1:
        wanted.add('modalities')
    assert {norm.axis for _, norm in exchange_norms(model)} == wanted


def test_official_config_is_the_official_code():
    """Exchange everywhere, penalty on the disjoint parts, the code's learning rates."""
    cfg = Config.fromfile(next(p for p in CONFIGS if p.stem.endswith('official')))
    with torch.device('meta'):
        norms = dict(exchange_norms(MODELS.build(cfg.model)))
    assert all(n.selection.threshold == 2e-2 and n.grid.size == 2 for n in norms.values())
    cfg.model.backbone.depth = 50
    norms = dict(exchange_norms(MODELS.build(cfg.model)))
    for norm in norms.values():
        assert norm.exchangeable.all()
        assert norm.penalised.sum() == norm.num_features
    assert cfg.param_scheduler.rates == [[5e-4, 2.5e-4, 1e-4], [3e-3, 1.5e-3, 7e-4]]


@pytest.mark.parametrize(
    ('name', 'epochs', 'every', 'images'),
    [('sunrgbd_refinenet_r101', 60, 20, 5285), ('cityscapes_pspnet_r101', 120, 40, 2975)],
)
def test_rates_are_halved(name, epochs, every, images):
    """The paper: 60 epochs of SUN RGB-D, halved every 20. About as many steps of Cityscapes."""
    cfg = Config.fromfile(next(p for p in CONFIGS if p.stem == name))
    layers = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    rates = dict(zip((5e-4, 3e-3), layers, strict=True))
    optimizer = torch.optim.SGD([dict(params=[p], lr=rate) for rate, p in rates.items()])
    scheduler = PARAM_SCHEDULERS.build(cfg.param_scheduler, default_args=dict(optimizer=optimizer))
    assert cfg.train_cfg.max_epochs == epochs
    for epoch in range(epochs):
        for first, group in zip(rates, optimizer.param_groups, strict=True):
            assert group['lr'] == pytest.approx(first / 2 ** (epoch // every))
        optimizer.step()
        scheduler.step()
    assert 50_000 < epochs * (images // cfg.train_dataloader.batch_size) < 60_000
