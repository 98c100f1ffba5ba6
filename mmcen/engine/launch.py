"""Build a runner from a command line: the parts of ``mmcen train`` and ``mmcen test``.

Errors in the user's input end the program with one sentence by ``parser.error``.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
import traceback
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.error import URLError

import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import master_only
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..checkpoints import find_checkpoint
from .heartbeat import TIMEOUT, start_heartbeat, stopped_ranks
from .hooks import CheckClassesHook
from .hooks.safe_checkpoint_hook import another_model, resume_command
from .options import Options, check_metrics, read_config

try:
    import fcntl
except ImportError:  # not on Windows, where a work directory is not locked
    fcntl = None  # type: ignore[assignment]


def common_parser(description: str, prog: str) -> ArgumentParser:
    """Return a parser with the arguments that training and testing share, named as in mmseg."""
    parser = ArgumentParser(prog=prog, description=description)
    parser.add_argument('config', help='config file, for example one of configs/cen/')
    parser.add_argument(
        '--work-dir', help='folder for logs and checkpoints; default: work_dirs/<name of config>'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Options,
        metavar='KEY=VALUE',
        help='override entries of the config, for example train_dataloader.batch_size=4 or '
        'key="[a,b]": quotation marks as shown, no white space',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='program that started the processes: pytorch for torchrun, also on CPUs',
    )
    # torchrun sets LOCAL_RANK; the older torch.distributed.launch passes one of these.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


def load_config(args: argparse.Namespace, parser: ArgumentParser) -> Config:
    """Read the config that the arguments of :func:`common_parser` name, and apply them to it.

    The work directory is the command line's, else the config's, else named after the config.
    """
    if args.launcher == 'pytorch' and 'WORLD_SIZE' not in os.environ:
        parser.error(
            '--launcher pytorch is for processes that torchrun starts: '
            'use torchrun --nproc_per_node N tools/train.py, or leave it out'
        )
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    with in_a_sentence(parser):
        cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    return cfg


def load_checkpoint(cfg: Config, checkpoint: str, parser: ArgumentParser) -> None:
    """Set the checkpoint to test: a file, or an address that mmengine can load."""
    if '://' not in checkpoint and not Path(checkpoint).is_file():
        parser.error(f'checkpoint {checkpoint} does not exist: train one with `mmcen train`')
    cfg.load_from = checkpoint


def resume(cfg: Config) -> None:
    """Resume from the last checkpoint in the work directory that can be read, and say which."""
    cfg.resume = True
    if cfg.get('load_from') is None:
        path, faults = find_checkpoint(cfg.work_dir)
        for fault in faults:
            _say(f'not resumed: {fault}')
        _say(f'resuming from {path}' if path else f'no checkpoint in {cfg.work_dir}: starting anew')
        cfg.load_from = None if path is None else str(path)
        cfg.resume = path is not None


@master_only
def _say(text: str) -> None:
    sys.stderr.write(f'{text}\n')


def lock_work_dir(folder: str) -> None:
    """Reject a second training in a work directory until this process ends.

    Raises:
        OSError: If another training uses the directory.
    """
    if fcntl is None or int(os.environ.get('RANK', 0)) > 0:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    lock = os.open(Path(folder, '.lock'), os.O_CREAT | os.O_RDWR, 0o666)  # open until the end
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of the process, not of its workers
    except OSError as error:
        os.close(lock)
        raise OSError(
            error.errno,
            f'another training is at work in {folder}: wait for it, or give another --work-dir',
        ) from error


def protect(cfg: Config) -> None:
    """Replace parts of mmengine by safe ones, in place.

    Checkpoints are complete and resumed exactly (``SafeCheckpointHook``, ``ExactEpochLoop``,
    ``ExactIterLoop``, ``EpochSeedHook``), and a loss that is not finite stops the training
    (``FiniteLossHook``).
    Parts of other types are kept. The scope is mmseg, if none is stated.
    """
    scope = cfg.get('default_scope') or 'mmseg'
    if not isinstance(scope, str):
        raise ValueError(f"default_scope is {scope!r}: give the name of a library, such as 'mmseg'")
    cfg.default_scope = scope
    for key in ('default_hooks', 'train_cfg', 'val_cfg', 'test_cfg', 'env_cfg', 'optim_wrapper'):
        if not isinstance(cfg.get(key) or {}, Mapping):
            raise ValueError(f'{key} is {cfg[key]!r}: give a dict, or None')
    if not isinstance(cfg.get('custom_hooks') or [], list):
        raise ValueError(f'custom_hooks is {cfg.custom_hooks!r}: give a list of dicts, or None')
    hooks = dict(cfg.get('default_hooks') or {})
    checkpoint = hooks.get('checkpoint', {'type': 'CheckpointHook', 'interval': 1})
    if checkpoint and checkpoint.get('type') == 'CheckpointHook':
        hooks['checkpoint'] = {**checkpoint, 'type': 'SafeCheckpointHook'}
    cfg.default_hooks = hooks
    train = cfg.get('train_cfg')
    if train:
        kind = train.get('type', 'EpochBasedTrainLoop')
        if kind == 'EpochBasedTrainLoop':
            train.type = 'ExactEpochLoop' if train.pop('by_epoch', True) else 'ExactIterLoop'
        elif kind == 'IterBasedTrainLoop':
            train.type = 'ExactIterLoop'
    custom = list(cfg.get('custom_hooks') or [])
    present = [hook.get('type') for hook in custom if isinstance(hook, dict)]
    custom += [{'type': t} for t in ('EpochSeedHook', 'FiniteLossHook') if t not in present]
    cfg.custom_hooks = custom


def load_strictly(runner: Runner, checkpoint: str) -> None:
    """Load a checkpoint that must fit the runner's model exactly.

    Raises:
        ValueError: If it is of another model.
    """
    try:
        runner.load_checkpoint(checkpoint, strict=True)
    except RuntimeError as error:
        raise ValueError(another_model(error)) from error


def enable_amp(cfg: Config, parser: ArgumentParser) -> None:
    """Train in mixed precision: float16 with a loss scale, or bfloat16 on a CPU that is fast in it.

    A config with several optimizers has a named wrapper for each.
    """
    if not isinstance(cfg.get('optim_wrapper'), Mapping):
        parser.error('--amp replaces optim_wrapper, which the config does not set: leave --amp out')
    several = 'constructor' in cfg.optim_wrapper and 'optimizer' not in cfg.optim_wrapper
    wrappers = [cfg.optim_wrapper]
    if several:
        wrappers = [part for part in cfg.optim_wrapper.values() if isinstance(part, dict)]
    for wrapper in wrappers:
        kind = wrapper.get('type', 'OptimWrapper')
        if kind in ('AmpOptimWrapper', 'BFloat16OptimWrapper'):
            continue
        if kind != 'OptimWrapper':
            parser.error(
                f'--amp replaces an OptimWrapper, and optim_wrapper.type is {kind}: leave --amp out'
            )
        if get_device() == 'cpu':
            wrapper.type, wrapper.enabled = 'BFloat16OptimWrapper', 'auto'
        else:
            wrapper.type = 'AmpOptimWrapper'
            wrapper.setdefault('loss_scale', 'dynamic')


def enable_tta(cfg: Config, parser: ArgumentParser) -> None:
    """Test with the config's ``tta_pipeline`` and ``tta_model``, as in mmseg."""
    missing = [k for k in ('tta_pipeline', 'tta_model', 'test_dataloader', 'model') if k not in cfg]
    if missing:
        parser.error(f'--tta needs {" and ".join(missing)}, which the config does not set')
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.tta_model.module = cfg.model
    cfg.model = cfg.tta_model


def write_predictions(cfg: Config, folder: str) -> None:
    """Set the folder into which mmseg's metric, or the first of several, writes label maps."""
    evaluator = cfg.get('test_evaluator')
    if not evaluator:
        raise ValueError('--out needs a test_evaluator, which the config does not set')
    (evaluator[0] if isinstance(evaluator, list) else evaluator).output_dir = folder


def draw_predictions(cfg: Config, show: bool, folder: str | None, wait_time: float) -> None:
    """Turn on the visualization hook, for a window, a folder, or the visualizer's backends."""
    hooks = cfg.get('default_hooks') or {}
    hook = {'type': 'SegVisualizationHook', **(hooks.get('visualization') or {})}
    cfg.default_hooks = {
        **hooks,
        'visualization': {**hook, 'draw': True, 'show': show, 'wait_time': wait_time},
    }
    if folder is not None:
        cfg.visualizer = {'type': 'SegLocalVisualizer', **(cfg.get('visualizer') or {})}
        cfg.visualizer.save_dir = folder


def build_runner(cfg: Config) -> Runner:
    """Build the runner of a config with safe parts, see :func:`protect`.

    Several processes also work on CPUs.
    """
    if not cfg.get('model'):
        raise ValueError('the config has no model: give one that trains, such as of configs/cen/')
    protect(cfg)
    check_metrics(cfg)
    if cfg.model.get('modality_dropout'):
        # private layers of absent modalities have no gradient
        for options in (cfg, cfg.get('model_wrapper_cfg')):
            if options is not None:
                options.setdefault('find_unused_parameters', True)
    if cfg.launcher == 'pytorch' and get_device() == 'cpu':
        _distribute_on_cpu(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    runner.register_hook(CheckClassesHook())
    return runner


def _distribute_on_cpu(cfg: Config) -> None:
    """Give mmengine's runner a gloo group and a wrapper without devices.

    By default it calls ``torch.cuda.set_device`` and puts the model on device LOCAL_RANK.
    """
    options = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
    dist.init_process_group('gloo', timeout=timedelta(seconds=options.get('timeout', TIMEOUT)))
    start_heartbeat()
    wrapper = {
        'type': 'MMDistributedDataParallel',
        'device_ids': None,
        'broadcast_buffers': False,
        'find_unused_parameters': cfg.get('find_unused_parameters', False),
    }
    cfg.model_wrapper_cfg = {**wrapper, **(cfg.get('model_wrapper_cfg') or {})}


@contextmanager
def in_a_sentence(parser: ArgumentParser) -> Iterator[None]:
    """Report errors in a user's input, files or environment in one sentence."""
    again = resume_command(option=parser.get_default('resume') is not None)
    logging.raiseExceptions = False  # a full disk is reported once, with the file
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write(f'\nstopped: go on with {again}\n')
        raise SystemExit(130) from None
    except RuntimeError as error:
        stopped = stopped_ranks() if dist.is_initialized() else []
        if not stopped:
            raise
        parser.error(
            f'process {" and ".join(map(str, stopped))} of {dist.get_world_size()} has stopped, '
            f'and the others waited ({str(error).splitlines()[0]}): look at its machine, and go on '
            f'with {again}'
        )
    except URLError as error:
        parser.error(
            f'cannot fetch the pretrained weights ({error.reason}): name a file by --cfg-options '
            'model.backbone.init_cfg.checkpoint=PATH, or go without by --cfg-options '
            'model.backbone.init_cfg=None model.backbone.norm_eval=False'
        )
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:
            parser.error(f'{error.strerror}: make room, and go on with {again}')
        parser.error(error.strerror if error.filename is None and error.strerror else said(error))
    except (ValueError, ImportError) as error:
        parser.error(said(error))
    except (TypeError, KeyError, AttributeError, AssertionError) as error:
        if not is_of_config(error):
            raise
        parser.error(said(error))


def is_of_config(error: BaseException) -> bool:
    """Whether an error was raised where mmengine builds a part of a config: its arguments are
    wrong."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(Path(frame.filename).name == 'build_functions.py' for frame in frames)


def said(error: BaseException) -> str:
    """What an error says, without the traceback that a data loader's worker puts into its text."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if '\nOriginal Traceback' in text:
        return text.strip().splitlines()[-1].partition(': ')[2]
    return text


@master_only
def report_training(runner: Runner, config: str) -> None:
    """Log where the results of a training are, and the command that tests them."""
    found = runner.message_hub.runtime_info
    last = found.get('last_ckpt')
    best = [path for key, path in found.items() if key.startswith('best_ckpt') and path]
    lines = [f'Training is done, its results are in {runner.work_dir}']
    lines += [f'  last checkpoint  {last}'] if last else []
    lines += [f'  best checkpoint  {path}' for path in best]
    lines += [f'  log              {runner.log_dir}']
    checkpoints = [*best, last] if last else best
    if checkpoints:
        lines += [f'  test it          mmcen test {config} {checkpoints[0]}']
    runner.logger.info('\n'.join(lines))


def finish() -> None:
    """Wait for the other processes of a distributed run, and end this one.

    Leftover gloo threads sometimes abort the interpreter at shutdown, which the launcher would
    report as a failure. Therefore the process exits here.
    """
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
