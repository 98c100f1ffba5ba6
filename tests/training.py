"""Training by the command line, in one process or several, which a hook may kill."""

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from tests.command import ENV, ROOT, run_python, run_together

KILLER = """
import os, signal
from pathlib import Path
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class KillOnce(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 4 and Path('kill').exists():  # in the middle of the second epoch
            Path('kill').unlink()
            os.kill(os.getpid(), signal.SIGKILL)
"""


def train(folder, *args, processes=1, check=True):
    """tools/train.py in ``folder``, in one process or several connected ones."""
    words = (ROOT / 'tools' / 'train.py', *args)
    place = dict(cwd=folder, env={**ENV, 'PYTHONPATH': str(folder)})
    if processes > 1:
        done = run_together(processes, *words, '--launcher', 'pytorch', **place)
    else:
        done = run_python(*words, **place)
    assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


SMALL = {  # a segmenter of a config, for two steps on two frames each, and its evaluation
    'model.backbone': dict(depth=18, base_channels=8, init_cfg=None, norm_eval=False),
    'model.decode_head': dict(in_channels=[8, 16, 32, 64], channels=16, light_weight=True),
    'model.data_preprocessor.size': (48, 64),
}


def run_training(config, folder, options):
    """Train a shipped config in this process, by default for an epoch, and evaluate it."""
    cfg = Config.fromfile(ROOT / 'configs' / 'cen' / config)
    short = {f'{part}_dataloader.num_workers': 0 for part in ('train', 'val', 'test')}
    short |= {f'{part}_dataloader.persistent_workers': False for part in ('train', 'val', 'test')}
    short |= {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1, 'launcher': 'none'}
    cfg.merge_from_dict(short | {'train_dataloader.batch_size': 2} | options)
    cfg.work_dir, cfg.experiment_name = str(folder), str(folder)  # logs are shared by name
    cfg.vis_backends = cfg.visualizer.vis_backends = []
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def two_steps(config, folder, options):
    """Train a shipped config for two steps of two frames in this process and evaluate it.

    Returns its metrics of validation, and the runner.
    """
    runner = run_training(config, folder, options)
    assert runner.iter == 2
    logs = runner.message_hub.log_scalars
    return {
        name.removeprefix('val/'): log.current()
        for name, log in logs.items()
        if name.startswith('val/')
    }, runner


def load(path):
    return torch.load(path, map_location='cpu', weights_only=True)
