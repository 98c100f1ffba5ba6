"""Rounds of pseudo labels: when they change and to what, a resumed training, wrong settings."""

from copy import deepcopy

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmcen.datasets import LoadPseudoLabel, SalientRooms
from mmcen.saliency import refine_saliency
from tests.training import ROOT

CONFIG = ROOT / 'configs' / 'cen' / 'saliency_rooms_lwrefinenet_r18.py'
SIZE = (32, 32)


class Watch(Hook):
    """What each epoch learned from, and the model after it; may stop after one."""

    priority = 'LOWEST'

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.seen, self.models = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        transforms = runner.train_dataloader.dataset.pipeline.transforms
        (loader,) = (t for t in transforms if isinstance(t, LoadPseudoLabel))
        self.seen.append((runner.epoch, runner.model.attentive, loader.updated))

    def after_train_epoch(self, runner):
        self.models.append(deepcopy(runner.model).eval())
        if runner.epoch + 1 == self.stop_after:
            raise InterruptedError


def build(folder, epochs=3, stop_after=None, **options):
    """A runner of three tiny rooms, one step an epoch, two epochs a round; and who watches it."""
    cfg = Config.fromfile(CONFIG)
    small = {
        'work_dir': str(folder),
        'experiment_name': f'{folder.parent.name}_{folder.name}_{stop_after}',
        'train_dataloader.dataset.length': 3,
        'train_dataloader.dataset.size': SIZE,
        'train_dataloader.batch_size': 3,
        'model.backbone.base_channels': 8,
        'model.decode_head.in_channels': [8, 16, 32, 64],
        'model.decode_head.channels': 8,
        'train_cfg.max_epochs': epochs,
        'default_hooks.checkpoint.save_best': None,
    }
    cfg.merge_from_dict({**small, **options})
    cfg.param_scheduler = cfg.visualizer = cfg.vis_backends = None
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    kept = ('EpochSeedHook', 'PseudoLabelHook')
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook.type in kept]
    runner, watch = Runner.from_cfg(cfg), Watch(stop_after)
    runner.register_hook(watch)
    return runner, watch


def stored(folder, index):
    path = f'{folder}/synthetic_rooms/train/{index:06d}.png'
    return cv2.imread(path, cv2.IMREAD_UNCHANGED) / 255


def test_rounds_and_what_they_write(tmp_path):
    runner, watch = build(tmp_path / 'run', epochs=5)
    runner.train()
    labels = tmp_path / 'run' / 'pseudo_labels'
    first, second = str(labels / 'round_1'), str(labels / 'round_2')
    assert watch.seen == [
        (0, False, None), (1, True, None), (2, False, first), (3, True, first), (4, False, second)
    ]  # fmt: skip
    assert len(list(labels.glob('round_*/**/*.png'))) == 6
    frames = SalientRooms(length=3, size=SIZE, pipeline=runner.cfg.update_pipeline)
    for i in range(3):
        # what is learned from is what is written, flipped or not
        learned = runner.train_dataloader.dataset[i]['data_samples'].gt_sem_seg.data[0].numpy()
        both = [np.abs(learned / 254 - label).max() for label in (
            stored(second, i), stored(second, i)[:, ::-1])]  # fmt: skip
        assert min(both) < 0.0021
        # what is written is the ensemble's prediction, refined
        packed = frames[i]
        rgb, near = (packed['inputs'][name].numpy() for name in ('rgb', 'depth'))
        with torch.no_grad():
            (sample,) = watch.models[3].test_step(pseudo_collate([packed]))
        predicted = sample.seg_logits.data[0].numpy()
        refined = refine_saliency(predicted, near[0], rgb.transpose(1, 2, 0))
        assert np.abs(refined - stored(second, i)).max() < 0.5 / 255 + 1e-4


def test_resumed_equals_one_run(tmp_path):
    whole, watch = build(tmp_path / 'whole')
    whole.train()
    part, _ = build(tmp_path / 'part', stop_after=2)
    with pytest.raises(InterruptedError):
        part.train()
    labels, away = tmp_path / 'part' / 'pseudo_labels', tmp_path / 'away'
    labels.rename(away)
    with pytest.raises(ValueError, match='resumes at epoch 2, but its pseudo labels are not in'):
        build(tmp_path / 'part', resume=True)[0].train()
    away.rename(labels)
    again, resumed = build(tmp_path / 'part', resume=True)
    again.train()
    assert [epoch for epoch, *_ in resumed.seen] == [2]
    expected = watch.models[-1].state_dict()
    for name, value in resumed.models[-1].state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        ({'custom_hooks.4.interval': 0}, 'interval must be 1 epoch or more, got 0'),
        (
            {'train_dataloader.dataset.pipeline': [dict(type='PackModalities')]},
            'no transform of the training loads pseudo labels: put LoadPseudoLabel into',
        ),
        (
            {'train_dataloader.num_workers': 1, 'train_dataloader.persistent_workers': True},
            'set persistent_workers=False in train_dataloader',
        ),
    ],
)
def test_wrong_settings(tmp_path, options, text):
    with pytest.raises(ValueError, match=text):
        build(tmp_path / 'run', **options)[0].train()
