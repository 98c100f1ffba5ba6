"""This working tree against another commit: alternating processes that each measure one of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from . import measure

ROOT = Path(__file__).resolve().parents[3]
SIDE = Path(__file__).with_name('side.py')
TASKS = ('train_step', 'test_frame')
OURS, THEIRS = 'ours', 'theirs'
ORI_SIZE = (480, 640)
MEMORY = {
    'cpu': 'highest resident set of a process, with its libraries; one process for each task',
    'cuda': 'torch.cuda.max_memory_allocated; one process for each task',
}


def find_commit(name: str) -> str:
    """The full hash of a commit of this repository.

    Raises:
        ValueError: This is not a git checkout, or there is no such commit.
    """
    top = _git('rev-parse', '--show-toplevel')
    if top is None or Path(top).resolve() != ROOT:
        raise ValueError(f'--against: {ROOT} is not a git checkout, measure in a clone')
    commit = _git('rev-parse', '--verify', '--quiet', '--end-of-options', name + '^{commit}')
    if commit is None:
        raise ValueError(f"--against: unknown commit '{name}', see git log")
    return commit


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """A checkout of a commit in a temporary folder, removed at the end, also by Ctrl-C or a
    signal to end.

    Raises:
        RuntimeError: Git cannot check it out.
    """
    folder = Path(tempfile.mkdtemp(prefix='mmcen-against-')).resolve()
    tree = folder / 'tree'
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit('ended by a signal'))
    try:
        if _git('worktree', 'add', '--detach', str(tree), commit) is None:
            raise RuntimeError(f'git worktree add fails for {commit} in {folder}')
        yield tree
    finally:
        _git('worktree', 'remove', '--force', str(tree))
        shutil.rmtree(folder, ignore_errors=True)
        _git('worktree', 'prune')
        signal.signal(signal.SIGTERM, before)


def _git(*arguments: str) -> str | None:
    """What git says, None where it fails; Ctrl-C does not reach it."""
    # A hook of git that runs this tool names its own repository in the environment.
    env = {key: value for key, value in os.environ.items() if not key.startswith('GIT_')}
    command = ['git', '-C', str(ROOT), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=env, start_new_session=True
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def config_in(tree: Path, config: Path, commit: str) -> Path:
    """Return the config of the same name in another tree; one outside this tree is used for both.

    Raises:
        ValueError: If the commit has no such config.
    """
    config = config.resolve()
    if not config.is_relative_to(ROOT):
        return config
    found = tree / config.relative_to(ROOT)
    if not found.is_file():
        raise ValueError(
            f'{config.relative_to(ROOT)} does not exist at {commit[:12]}: give a config that both '
            'commits have'
        )
    return found


def setting(cfg: Config, args: Namespace) -> dict[str, Any]:
    """Batch size and input sizes by task: as asked for, else the config's.

    Raises:
        ValueError: If the config does not state them.
    """
    train, val = cfg.get('train_dataloader') or {}, cfg.get('val_dataloader') or {}
    batch = args.batch or train.get('batch_size')
    shapes = {
        'train_step': args.shape or input_size(train.get('dataset') or {}),
        'test_frame': args.shape or input_size(val.get('dataset') or {}) or args.ori_size,
    }
    for value, option in ((batch, '--batch'), (shapes['train_step'], '--shape')):
        if value is None:
            raise ValueError(f'the config does not tell the size of a train step: give {option}')
    return {'batch': batch, 'shapes': {task: list(shape) for task, shape in shapes.items()}}


def input_size(dataset: dict) -> tuple[int, int] | None:
    """Height and width that a dataset's last resizing, cropping or padding transform gives.

    Examples:
        >>> input_size({'pipeline': [{'type': 'Resize', 'scale': (208, 160)}]})
        (160, 208)
    """
    if 'datasets' in dataset:
        return input_size(dataset['datasets'][0])
    size = dataset.get('size')
    for transform in _flat(dataset.get('pipeline') or []):
        if isinstance(scale := transform.get('scale'), (tuple, list)):
            size = scale[::-1]
        size = transform.get('crop_size') or transform.get('size') or size
    if isinstance(size, int):
        size = (size, size)
    return None if size is None else (int(size[0]), int(size[1]))


def _flat(transforms: list) -> Iterator[dict]:
    for transform in transforms:
        yield transform
        yield from _flat(transform.get('transforms') or [])


def compare(
    args: Namespace, sizes: dict[str, Any], commit: str, device: str, advance: Callable[[], None]
) -> dict:
    """Times and memory of both sides by task, and ours / theirs.

    Raises:
        ValueError: If the other commit has no such config.
        RuntimeError: If a process fails.
    """
    result: dict = {}
    with worktree(commit) as tree:
        trees = {OURS: ROOT, THEIRS: tree}
        configs = {name: config_in(trees[name], Path(args.config), commit) for name in trees}
        for task in TASKS:
            measured: dict[str, list[dict]] = {name: [] for name in trees}
            for _ in range(args.runs):
                for name, root in trees.items():
                    job = _job(args, sizes, task, device)
                    job |= {'tree': str(root), 'config': str(configs[name])}
                    measured[name].append(run_side(job, name))
                    advance()
            result[task] = figures(measured)
    return result


def _job(args: Namespace, sizes: dict[str, Any], task: str, device: str) -> dict[str, Any]:
    names = ('warmup', 'steps', 'threads', 'precision', 'channels_last', 'clock', 'ori_size')
    return {
        **{name: getattr(args, name) for name in names},
        'cfg_options': args.cfg_options or {},
        'task': task,
        'shape': sizes['shapes'][task],
        'batch': sizes['batch'],
        'device': device,
    }


def run_side(job: dict[str, Any], name: str) -> dict[str, Any]:
    """Measure one side in a separate process, which inherits the environment.

    Raises:
        RuntimeError: If the process fails; the message ends with its last lines.
    """
    paths = [job['tree'], *filter(None, [os.environ.get('PYTHONPATH')])]
    done = subprocess.run(
        [sys.executable, str(SIDE), json.dumps(job)],
        cwd=job['tree'],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = '\n'.join(done.stderr.strip().splitlines()[-4:])
        raise RuntimeError(f'{job["task"]} of {name} ended with {done.returncode}:\n{last}')
    return json.loads(done.stdout.splitlines()[-1])


def figures(measured: dict[str, list[dict]]) -> dict:
    """Medians of both sides, and ours / theirs by pairs of processes.

    Args:
        measured: Results of the processes by side.

    Examples:
        >>> one, two = {'times': [1.0, 3.0, 9.0], 'memory': 2}, {'times': [4.0], 'memory': 4}
        >>> figures({'ours': [one], 'theirs': [two]})['ratio']['median']
        0.75
    """
    result: dict = {}
    for name, processes in measured.items():
        medians = [float(np.median(process['times'])) for process in processes]
        memory = [process['memory'] for process in processes]
        result[name] = {
            **measure.quartiles(medians),
            'times': [process['times'] for process in processes],
            'medians': medians,
            'memory': float(np.median(memory)),
            'memories': memory,
        }
    ours, theirs = result[OURS], result[THEIRS]
    result['ratio'] = measure.ratios(ours['medians'], theirs['medians'])
    result['memory_ratio'] = measure.ratios(ours['memories'], theirs['memories'])
    return result
