"""Train a small CEN on rendered rooms, evaluate it, and show the result.

There is no download. It takes minutes on a CPU.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..core import exchanged_shares
from ..engine.options import Options, read_config
from ..shipped import shipped_config

METRICS = {'mIoU': 'mean IoU', 'mAcc': 'mean accuracy', 'aAcc': 'pixel accuracy'}


class ProgressHook(Hook):
    """Show a progress bar instead of the log, which is in the work directory."""

    def __init__(self, console: Console) -> None:
        self.bar = Progress(
            TextColumn('{task.description}'),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn('loss {task.fields[loss]}'),
            TimeRemainingColumn(),
            console=console,
        )

    def before_train(self, runner: Runner) -> None:
        self.task = self.bar.add_task('training', total=runner.max_iters, loss='-')
        self.bar.start()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.bar.update(self.task, completed=runner.iter + 1, loss=f'{float(outputs["loss"]):.3f}')

    def before_val_epoch(self, runner: Runner) -> None:
        self.bar.update(self.task, description='evaluating')

    def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
        self.bar.update(self.task, description='training')

    def after_train(self, runner: Runner) -> None:
        self.bar.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Train, evaluate and report; the status is 0 if the ensemble beats both of its streams."""
    warnings.filterwarnings('ignore')  # OpenMMLab's, which do not matter to a first-time user
    parser = argparse.ArgumentParser(prog='mmcen demo', description=__doc__)
    parser.add_argument('--work-dir', default='work_dirs/demo', help='folder for all results')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Options,
        default={},
        help='entries of the config to override, as a.b=c',
    )
    args = parser.parse_args(argv)
    console = Console()
    start = time.monotonic()
    runner = build_runner(args)
    runner.register_hook(ProgressHook(console))
    runner.train()
    metrics = runner.message_hub.get_info('last_val')
    beats = report(console, runner, metrics)
    console.print(
        f'pictures of inputs, label and predictions: {Path(args.work_dir, "sheets")}\n'
        f'checkpoint, log and config: {args.work_dir}\n'
        f'took {time.monotonic() - start:.0f} s with {torch.get_num_threads()} threads'
    )
    if not beats:
        print('the ensemble does not beat both of its streams in this run', file=sys.stderr)
    return int(not beats)


def build_runner(args: argparse.Namespace) -> Runner:
    cfg = read_config(str(shipped_config('rooms_lwrefinenet_r18.py')), args.cfg_options)
    cfg.work_dir = args.work_dir
    cfg.log_level = 'ERROR'
    cfg.default_hooks.checkpoint.update(interval=cfg.train_cfg.max_epochs, save_best=None)
    return Runner.from_cfg(cfg)


def report(console: Console, runner: Runner, metrics: dict[str, float]) -> bool:
    """Print both tables; True if the ensemble's mean IoU is above that of every stream."""
    model = runner.model
    table = Table(title='validation, in %')
    for title in ('output', *METRICS.values(), 'score in the ensemble'):
        table.add_column(title, justify='left' if title == 'output' else 'right')
    scores = model.ensemble.scores()[0].tolist()
    for name, score in zip(model.streams, scores, strict=True):
        table.add_row(
            f'{name} alone', *(f'{metrics[f"{name}/{m}"]:.1f}' for m in METRICS), f'{score:.2f}'
        )
    table.add_row('ensemble', *(f'{metrics[m]:.1f}' for m in METRICS), '', style='bold')
    console.print(table)
    shares = Table(title='share of channels that are exchanged, in % of all of a layer')
    shares.add_column('layer')
    for name in model.streams:
        shares.add_column(name, justify='right')
    for layer, share in exchanged_shares(model).items():
        shares.add_row(layer, *(f'{100 * s:.0f}' for s in share[0].tolist()))
    console.print(shares)
    best = max(metrics[f'{name}/mIoU'] for name in model.streams)
    console.print(
        f'ensemble {metrics["mIoU"]:.1f} mean IoU, best single stream {best:.1f}', style='bold'
    )
    return metrics['mIoU'] > best
