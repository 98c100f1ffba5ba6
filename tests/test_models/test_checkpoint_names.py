"""Checkpoints of other streams, tasks, classes or normalisation are rejected wherever loaded."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmseg.apis import init_model

from mmcen.apis import CENInferencer
from mmcen.models.checkpoint_names import KEY, CheckpointError
from tests.specs import modality_list, task_list
from tests.training import ROOT, SMALL

STATS = dict(mean=[0.0], std=[1.0])
HEAD = dict(type='FCNHead', in_channels=64, in_index=3, channels=4, num_convs=1, concat_input=False)


def segmentor(names=('rgb', 'depth'), classes=5, **depth):
    specs = {name: STATS | (depth if name == 'depth' else {}) for name in names}
    return dict(
        type='CENEncoderDecoder',
        data_preprocessor=dict(type='CENDataPreprocessor', modalities=modality_list(specs)),
        backbone=dict(
            type='CENResNet', depth=18, base_channels=8, norm_cfg=dict(type='CENBN'), in_channels=3
        ),
        decode_head=dict(HEAD, num_classes=classes, norm_cfg=dict(type='CENBN')),
    )


def multitask(tasks, **preprocessor):
    network = dict(type='CENUNetGenerator', downs=3, base_channels=4)
    return dict(type='CENMultiTask', tasks=task_list(tasks), network=network, **preprocessor)


def normalised(std):
    """The target of a task by another standard deviation than its input."""
    specs = modality_list(dict(rgb=STATS, normal=dict(mean=[127.5] * 3, std=[std] * 3)))
    return dict(data_preprocessor=dict(type='CENDataPreprocessor', modalities=specs))


OTHERS = {
    'order of modalities': (
        segmentor(),
        segmentor(('depth', 'rgb')),
        "the modalities ['rgb', 'depth'], the model has ['depth', 'rgb']",
    ),
    'name of a modality': (
        segmentor(),
        segmentor(('rgb', 'thermal')),
        "the modalities ['rgb', 'depth'], the model has ['rgb', 'thermal']",
    ),
    'number of modalities': (
        segmentor(('rgb', 'depth', 'normal')),
        segmentor(),
        "the modalities ['rgb', 'depth', 'normal'], the model has ['rgb', 'depth']",
    ),
    'number of classes': (
        segmentor(),
        segmentor(classes=6),
        'the output channels 5, the model has 6',
    ),
    'normalisation': (
        segmentor(mean=[2.8], std=[1.6]),
        segmentor(mean=[2800], std=[1600]),  # in millimetres
        "the mean and std of 'depth' [[2.8], [1.6]], the model has [[2800], [1600]]",
    ),
    'normalisation of a target': (
        multitask(dict(normal=['rgb']), **normalised(127.5)),
        multitask(dict(normal=['rgb']), **normalised(58.0)),
        "the mean and std of 'normal' [[127.5, 127.5, 127.5], [127.5, 127.5, 127.5]], the model "
        'has [[127.5, 127.5, 127.5], [58.0, 58.0, 58.0]]',
    ),
    'order of tasks': (
        multitask(dict(normal=['rgb'], edge=['rgb'])),
        multitask(dict(edge=['rgb'], normal=['rgb'])),
        "the tasks ['normal', 'edge'], the model has ['edge', 'normal']",
    ),
    'inputs of a task': (
        multitask(dict(normal=['rgb', 'depth'], edge=['rgb', 'depth'])),
        multitask(dict(normal=['rgb', 'depth'], edge=['depth', 'rgb'])),
        "the modalities of task 'edge' ['rgb', 'depth'], the model has ['depth', 'rgb']",
    ),
}


def plain(model, path):
    MODELS.build(model).load_state_dict(torch.load(path, weights_only=True)['state_dict'])


def runner(model, path, **settings):
    made = Runner.from_cfg(
        Config(
            dict(
                model=model,
                work_dir=str(path.parent / 'work'),
                experiment_name=f'{path}{settings}',
                default_scope='mmseg',
                **settings,
            )
        )
    )
    made.load_or_resume()


def load_from(model, path):
    runner(model, path, load_from=str(path))


def by_init_model(model, path):
    init_model(Config(dict(model=model)), str(path), device='cpu')


def inferencer(model, path):
    CENInferencer(Config(dict(model=model)), str(path), device='cpu')


@pytest.mark.parametrize('load', [plain, load_from, by_init_model, inferencer])
@pytest.mark.parametrize('name', OTHERS)
def test_other_names(tmp_path, name, load):
    saved, other, text = OTHERS[name]
    if load is by_init_model and saved['type'] == 'CENMultiTask':
        pytest.skip('init_model is for segmentors')
    path = tmp_path / 'model.pth'
    torch.save(dict(state_dict=MODELS.build(saved).state_dict(), meta={}), path)
    with pytest.raises(CheckpointError, match=re.escape(f'the checkpoint has {text}: state')):
        load(other, path)
    load(saved, path)


def test_weights_without_names_load():
    """Such as those of a network of one stream."""
    one, two = MODELS.build(segmentor(('rgb',))), MODELS.build(segmentor())
    state = one.state_dict()
    del state[KEY]
    state['ensemble.alpha'] = two.ensemble.alpha
    two.load_state_dict(state)
    assert KEY not in state
    weight = two.backbone.bn1.norm.weight.view(2, -1)
    assert torch.equal(weight[0], weight[1])


CONFIG = f"""
_base_ = '{ROOT}/configs/cen/rooms_lwrefinenet_r18.py'
data = dict(length=4, size=(32, 32))
train_dataloader = dict(batch_size=2, dataset=data)
val_dataloader = dict(batch_size=2, dataset=data)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1, val_interval=1)
param_scheduler = []
"""


@pytest.mark.parametrize('how', ['test', 'load_from', 'resume'])
def test_other_classes(tmp_path, monkeypatch, capsys, how):
    """Through the command line's runner: the same number of classes, two of them swapped."""
    from argparse import ArgumentParser

    from mmcen.engine import launch

    monkeypatch.chdir(tmp_path)
    (tmp_path / 'config.py').write_text(CONFIG)
    parser = ArgumentParser()

    def build(*words, **settings):
        cfg = Config.fromfile('config.py')
        cfg.merge_from_dict({k: v for k, v in SMALL.items() if 'preprocessor' not in k})
        cfg.merge_from_dict(settings)
        cfg.launcher, cfg.work_dir, cfg.experiment_name = 'none', 'work', f'{tmp_path}{settings}'
        cfg.vis_backends = cfg.visualizer.vis_backends = []
        return launch.build_runner(cfg)

    build().train()
    classes = list(build().train_dataloader.dataset.metainfo['classes'])
    classes[1:3] = classes[2:0:-1]
    swapped = {
        f'{part}_dataloader.dataset.metainfo': dict(classes=classes)
        for part in ('train', 'val', 'test')
    }
    settings = dict(resume=True) if how == 'resume' else dict(load_from='work/epoch_1.pth')
    one = build(**swapped, **settings)
    with pytest.raises(SystemExit), launch.in_a_sentence(parser):
        one.test() if how == 'test' else one.train()
    said = capsys.readouterr().err
    assert 'the checkpoint has 10 classes and the data set 10; class 1 is ' in said
    assert f"and '{classes[1]}' here: give the data set the classes of the checkpoint" in said
