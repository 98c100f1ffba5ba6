#!/usr/bin/env python
"""Measure on a GPU that is available for ten minutes, the most important figures first.

Parts: ``tests`` (those marked ``gpu``), ``speed``, ``training`` (several methods at once on the
card, on NYUv2 at 240x320). Each has a time budget. Results are written immediately to
``results.jsonl`` and ``summary.md``, so the run can be stopped at any time. ``make bundle`` makes
the folder that a machine without network needs.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch

from projects.paper.gpu.children import Children
from projects.paper.gpu.results import Results

PARTS = {'tests': 60, 'speed': 90, 'training': 360}  # seconds
METHODS = {
    'no exchange': 'projects/paper/configs/efflite0_noexchange.py',
    'CEN': 'configs/cen/nyud_lwrefinenet_efflite0.py',
    'CEN, budget': 'configs/cen/nyud_lwrefinenet_efflite0_budget.py',
    'concat': 'projects/paper/configs/efflite0_concat.py',
    'self-attention': 'projects/paper/configs/efflite0_selfatt.py',
}
CALIBRATION = 0.5  # of the training's time, at most, until its speed is known
TEST = 0.15  # of it, for the test
MARGIN = 0.92
OUTCOME = re.compile(r'^(\S+::\S.*?) (PASSED|FAILED|ERROR|SKIPPED)')
# the whole, and a rehearsal on any machine
FULL = dict(
    shape=[480, 640],
    batch=4,
    rounds=7,
    warmup=2,
    matrix=8192,
    limit=None,
    trial=25,
    cfg_options={},
)
QUICK = dict(shape=[64, 64], batch=2, rounds=1, warmup=0, matrix=64, limit=4, trial=1,
             cfg_options={'train_dataloader.batch_size': 2})  # fmt: skip


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Measure everything on a GPU.')
    add = parser.add_argument
    # fmt: off
    add('--out', type=Path, required=True, help='folder for the results')
    add('--parts', nargs='+', choices=list(PARTS), default=list(PARTS))
    add('--seconds', nargs='+', type=seconds, default=[], metavar='PART=N',
        help=f'time budgets, default {" ".join(f"{k}={v}" for k, v in PARTS.items())}')
    add('--frames', type=Path, help='training: nyuv2_240x320.zip of the bundle')
    add('--weights', type=Path, help='training: efficientnet_lite0.pth of the bundle')
    add('--methods', nargs='+', choices=list(METHODS), default=list(METHODS))
    add('--models', nargs='+', help='speed: names of models, default all')
    add('--seed', type=int, default=0, help='seed of the training')
    add('--quick', action='store_true', help='rehearse on tiny sizes; also on a CPU')
    # fmt: on
    args = parser.parse_args()
    if 'training' in args.parts and not (args.frames and args.frames.is_file()):
        parser.error('training needs --frames: make it by `make bundle`, or leave the part out')
    if not args.quick and not torch.cuda.is_available():
        parser.error('PyTorch finds no GPU here: rehearse with --quick')
    return args


def seconds(text: str) -> tuple[str, float]:
    part, _, number = text.partition('=')
    if part not in PARTS:
        raise argparse.ArgumentTypeError(f'{part} is none of {", ".join(PARTS)}')
    return part, float(number)


class Day:
    """The parts, one after the other."""

    def __init__(self, args: argparse.Namespace, log: IO[str]) -> None:
        self.args, self.log, self.results = args, log, Results(args.out)
        self.budgets = {**PARTS, **dict(args.seconds)}
        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self.sizes: dict[str, Any] = QUICK if args.quick else FULL

    def run(self) -> None:
        found = environment() | {'command': ' '.join(sys.argv[1:])}
        if self.args.quick:
            found['rehearsal'] = 'sizes are tiny: no figure is a result'
        self.results.add('environment', **found)
        for part in self.args.parts:
            print(f'{part}: {self.budgets[part]:g} s', flush=True)
            getattr(self, part)(time.monotonic() + self.budgets[part])
        print(f'results: {self.results.path}, {self.args.out / "summary.md"}')

    def tests(self, deadline: float) -> None:
        options = ['-v', '--no-header', '--tb=short', '-p', 'no:cacheprovider', '-m', 'gpu']
        if self.args.quick:
            options += ['--gpu-tests-on', self.device]
        command = [sys.executable, '-m', 'pytest', *options, 'tests/test_gpu.py']
        with Children({'tests': command}, self.log) as children:
            for _, line in children.until(deadline):
                if line is not None and (found := OUTCOME.match(line)):
                    self.results.add('tests', test=found[1], outcome=found[2])
                print(line or '', file=self.log, flush=True)
            self._say_if_cut('tests', children)

    def speed(self, deadline: float) -> None:
        names = ('shape', 'batch', 'rounds', 'warmup', 'matrix')
        job = {**{k: self.sizes[k] for k in names}, 'device': self.device}
        job['models'] = self.args.models
        command = [sys.executable, '-m', 'projects.paper.gpu.speed', json.dumps(job)]
        with Children({'speed': command}, self.log, threads=4) as children:
            for _, line in children.until(deadline):
                self._take('speed', line)
            self._say_if_cut('speed', children)

    def training(self, deadline: float) -> None:
        budget = deadline - time.monotonic()
        commands = {name: self._train_command(name) for name in self.args.methods}
        with Children(commands, self.log) as children:
            rates = self._calibrate(children, deadline - (1 - CALIBRATION) * budget)
            if rates:
                left = deadline - time.monotonic() - TEST * budget
                epochs = max(1, int(MARGIN * left / max(rates.values())))
                self.results.add('training', note=f'{epochs} epochs for each method')
                for name in commands:
                    children.tell(name, str(epochs) if name in rates else '')
                for name, line in children.until(deadline):
                    self._take('training', line, method=name)
            self._say_if_cut('training', children)

    def _calibrate(self, children: Children, deadline: float) -> dict[str, float]:
        """Seconds per epoch by method, while all run."""
        rates: dict[str, float] = {}
        for name, line in children.until(deadline):
            values = self._take('training', line, method=name)
            if 'seconds_per_epoch' in values:
                rates[name] = values['seconds_per_epoch']
            if set(rates) >= children.running:
                break
        return rates

    def _train_command(self, method: str) -> list[str]:
        args = self.args
        job = {
            **{k: self.sizes[k] for k in ('limit', 'trial', 'cfg_options')},
            'method': method,
            'config': str(ROOT / METHODS[method]),
            'frames': str(args.frames.resolve()),
            'weights': args.weights and str(args.weights.resolve()),
            'device': self.device,
            'precision': 'bf16' if self.device == 'cuda' else 'fp32',
            'seed': args.seed,
        }
        return [sys.executable, '-m', 'projects.paper.gpu.train', json.dumps(job)]

    def _take(self, part: str, line: str | None, **more: Any) -> dict[str, Any]:
        """Add a JSON line to the results; what is none goes to the log."""
        try:
            values = json.loads(line or '')
        except ValueError:
            print(line or '', file=self.log, flush=True)
            return {}
        self.results.add(part, **more, **values)
        return values

    def _say_if_cut(self, part: str, children: Children) -> None:
        for name in children.processes:
            if name in children.running:
                self.results.add(part, note=f'{name}: the time was over')
            elif children.failed(name):
                self.results.add(part, note=f'{name}: failed, see log.txt')


def environment() -> dict[str, Any]:
    """What the figures were measured on."""
    commit = ROOT / 'COMMIT'
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    packages = ('torch', 'numpy', 'timm', 'onedl-mmengine', 'onedl-mmsegmentation', 'mmengine')
    return {
        'date': time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime()),
        'card': card,
        'cuda': torch.version.cuda,
        'python': platform.python_version(),
        'commit': commit.read_text().strip() if commit.is_file() else None,
        **{name: found for name in packages if (found := version_of(name))},
    }


def version_of(name: str) -> str | None:
    try:
        return version(name)
    except ModuleNotFoundError:
        return None


def main() -> None:
    args = parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('ended by a signal'))
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / 'log.txt').open('a') as log:
        Day(args, log).run()


if __name__ == '__main__':
    main()
