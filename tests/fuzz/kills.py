"""Kill trainings at random moments and compare what they come to with one that was left alone:
``python -m tests.fuzz.kills --kills 200``."""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from torch import nn
from torch.utils.data import Dataset

from mmcen import convert
from mmcen.engine import launch
from mmcen.engine.hooks.safe_checkpoint_hook import WholeFileBackend
from tests import toy  # noqa: F401  its metric

CONFIG = """
default_scope = 'mmseg'
model = dict(type='TinyCEN')
loader = dict(batch_size=4, num_workers=0, dataset=dict(type='NoisyFrames'),
              collate_fn=dict(type='default_collate'))
train_dataloader = dict(sampler=dict(type='DefaultSampler', shuffle=True), **loader)
val_dataloader = dict(sampler=dict(type='DefaultSampler', shuffle=False), **loader)
val_dataloader['dataset'] = dict(type='NoisyFrames', noise=0)
val_evaluator = dict(type='ToyMetric')
val_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9))
param_scheduler = dict(type='LinearLR', start_factor=0.1, end=10, by_epoch=False)
custom_hooks = [dict(type='SparsityHook', coefficient=0.01)]
randomness = dict(seed=3)
"""
KEEP = (
    "checkpoint=dict(type='CheckpointHook', max_keep_ckpts=1, save_best='error', rule='less', {})"
)
HOOKS = 'default_hooks = dict(' + KEEP + ')\n'
BY_ITERATION = HOOKS.format('by_epoch=False, interval=3')
WAYS = {  # how checkpoints are made, and how the training is counted
    'epochs': HOOKS.format('interval=1') + 'train_cfg = dict(max_epochs=4, val_interval=2)\n',
    'iterations of epochs': BY_ITERATION + 'train_cfg = dict(max_epochs=4, val_interval=2)\n',
    'iterations': BY_ITERATION
    + "train_cfg = dict(type='IterBasedTrainLoop', max_iters=16, val_interval=5)\n"
    "train_dataloader = dict(sampler=dict(type='InfiniteSampler', shuffle=True), **loader)\n",
}


@DATASETS.register_module()
class NoisyFrames(Dataset):
    """Frames of two modalities with random noise, as augmentation draws it."""

    def __init__(self, noise: float = 1.0) -> None:
        self.noise = noise

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        frame = torch.full((2, 8, 8), index / 16)
        if self.noise:
            frame += self.noise * torch.from_numpy(np.random.rand(2, 8, 8))
        return {'inputs': frame, 'data_samples': torch.tensor(index / 16)}


@MODELS.register_module()
class TinyCEN(BaseModel):
    """Two streams that exchange channels, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)]
        self.network = convert(
            nn.Sequential(*layers), modalities=2, example=torch.rand(2, 1, 8, 8), threshold=0.9
        )
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, inputs: Any, data_samples: Any, mode: str = 'tensor') -> Any:
        """Predict the mean of a frame."""
        streams = self.head(self.network(torch.cat(inputs.chunk(2, 1)))).mean((1, 2, 3))
        output = torch.stack(streams.chunk(2)).mean(0)
        if mode == 'predict':
            return [{'error': error} for error in (output - data_samples).abs()]
        return {'loss': (output - data_samples).square().mean()}


def child(work: Callable[..., None], *args: Any) -> int:
    """Run in a process of its own that has everything imported; give its id."""
    pid = os.fork()
    if pid:
        return pid
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stderr = open(os.devnull, 'w')  # noqa: SIM115  what is said of resuming
    try:
        work(*args)
        os._exit(0)
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
        os._exit(70)


def train(config: Path, folder: Path, die_at: tuple[int, float] | None = None) -> None:
    """Train, or resume, as the command line does; perhaps die within the n-th file written."""
    os.chdir(folder)
    if die_at is not None:
        _die_writing(*die_at)
    cfg = Config.fromfile(config)
    cfg.work_dir, cfg.launcher, cfg.log_level = str(folder / 'work'), 'none', 'ERROR'
    launch.lock_work_dir(cfg.work_dir)
    if Path(cfg.work_dir, 'last_checkpoint').exists() or list(Path(cfg.work_dir).glob('*.pth')):
        launch.resume(cfg)
    launch.build_runner(cfg).train()


def _die_writing(count: int, share: float) -> None:
    put, left = WholeFileBackend.put, count

    def write(self: WholeFileBackend, obj: bytes, filepath: str) -> None:
        nonlocal left
        if left == 0:  # a part of the file, as the disk has it when the power goes
            whole = Path.write_bytes

            def write_part(path: Path, data: bytes) -> int:
                whole(path, data[: int(share * len(data))])
                os.kill(os.getpid(), signal.SIGKILL)
                return 0

            Path.write_bytes = write_part  # type: ignore[method-assign, assignment]
        left -= 1
        put(self, obj, filepath)

    WholeFileBackend.put = write  # type: ignore[method-assign]


def final(folder: Path) -> dict[str, Any]:
    """What a training came to: weights, optimizer, schedule, best checkpoints."""
    path = Path((folder / 'work/last_checkpoint').read_text())
    checkpoint = torch.load(path, weights_only=True)
    found = {key: checkpoint[key] for key in ('state_dict', 'optimizer', 'param_schedulers')}
    best = sorted(p.name for p in (folder / 'work').glob('best_*.pth'))
    return found | {'iter': checkpoint['meta']['iter'], 'name': path.name, 'best': best[-1:]}


def same(first: Any, second: Any) -> bool:
    """Whether nested values are equal to the last bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def kill(config: Path, folder: Path, draw: random.Random, duration: float, writing: bool) -> bool:
    """Kill a training once, within a write or at a random moment.

    Returns:
        Whether it was killed; False if it came to its end before.
    """
    pid = child(train, config, folder, (draw.randrange(4), draw.random()) if writing else None)
    if not writing:
        time.sleep(draw.random() * duration)
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def run(kills: int, seed: int = 0, each: int = 3) -> Counter:
    """Kill trainings until there were enough kills, a quarter of them within a write.

    Args:
        kills: How many.
        seed: Of all random choices.
        each: Kills of one training at most.

    Returns:
        Counts of kills by way, and of trainings that came to the same or not.
    """
    draw, counts = random.Random(seed), Counter()
    with tempfile.TemporaryDirectory() as place:
        for number, way in enumerate(WAYS):
            config = Path(place, f'{number}.py')
            config.write_text(CONFIG + WAYS[way])
            folder = Path(place, f'whole{number}')
            folder.mkdir()
            start = time.monotonic()
            assert os.waitpid(child(train, config, folder), 0)[1] == 0, way
            wanted, duration = final(folder), time.monotonic() - start
            share = kills // len(WAYS) + (number < kills % len(WAYS))
            training = 0
            while counts[way] < share:
                training += 1
                folder = Path(place, f'{number}-{training}')
                folder.mkdir()
                for _ in range(min(each, share - counts[way])):
                    writing = 4 * counts['within a write'] <= sum(counts[one] for one in WAYS)
                    if not kill(config, folder, draw, duration, writing):
                        break
                    counts[way] += 1
                    counts['within a write'] += writing
                status = os.waitpid(child(train, config, folder), 0)[1]
                good = status == 0 and same(final(folder), wanted)
                counts['same' if good else f'lost or different ({way}, {status})'] += 1
                sys.stderr.write(f'{way} {training}: {"same" if good else "LOST OR DIFFERENT"}\n')
                counts['left over'] += len(list((folder / 'work').glob('.*.part')))
    return counts


def main() -> int:
    """Print the counts; fail if a training was lost or came to something else."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kills', type=int, default=200)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    counts = run(args.kills, args.seed)
    for what, count in counts.items():
        print(f'{count:5} {what}')
    return int(any('lost' in what for what in counts) or counts['left over'] > 0)


if __name__ == '__main__':
    torch.set_num_threads(1)
    sys.exit(main())
