"""Trainings that are killed, stopped or out of room go on exactly where they were."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmcen.checkpoints import find_checkpoint
from mmcen.engine import launch
from mmcen.files import whole_file
from tests.command import ENV, run_python

from ..test_cli.test_tools import config, run  # noqa: F401  fixtures
from ..training import load

ROOT = Path(__file__).parents[2]
BY_ITER = ['default_hooks.checkpoint.by_epoch=False', 'default_hooks.checkpoint.interval=3']
EPOCHS = ['--cfg-options', 'train_cfg.max_epochs=3']


@HOOKS.register_module()
class SignalOnce(Hook):
    """Signals its own process in the middle of the second epoch of the first run."""

    def __init__(self, number: int, at: int = 5) -> None:
        self.number, self.at = number, at

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == self.at and not Path('signalled').exists():
            Path('signalled').touch()
            os.kill(os.getpid(), self.number)


def weights(path):
    return load(path)['state_dict']


def assert_equal(first, second):
    for name, value in weights(first).items():
        assert torch.equal(value, weights(second)[name]), name


@pytest.mark.parametrize('options', [[], BY_ITER])
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_moment(run, config, capsys, options, number):  # noqa: F811
    handler = signal.getsignal(number)
    options = [*EPOCHS, *options]
    run('train', config, '--work-dir', 'whole', *options)
    Path('signal.py').write_text(
        f"_base_ = './toy.py'\nexperiment_name = '{uuid4()}'\n"
        f"custom_hooks = [dict(type='SignalOnce', number={int(number)})]\n"
    )
    with pytest.raises(SystemExit, match=str(128 + number)):
        run('train', 'signal.py', '--work-dir', 'stopped', *options)
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f'stopped by {number.name} after 6 iterations, which are saved: go on ')
    assert said.endswith('--resume')
    assert signal.getsignal(number) == handler
    run('train', config, '--work-dir', 'stopped', *options, '--resume')
    said = capsys.readouterr()
    assert f'resuming from {Path("stopped/stopped.pth").absolute()}' in said.err
    assert 'resumed epoch: 1, iter: 6' in said.out
    assert not Path('stopped/stopped.pth').exists()
    name = 'iter_12.pth' if len(options) > 2 else 'epoch_3.pth'
    assert load(f'stopped/{name}')['meta']['iter'] == 12
    assert_equal(f'whole/{name}', f'stopped/{name}')


@pytest.mark.parametrize('damage', ['gone', 'cut', 'flipped', 'named by an empty file'])
def test_the_newest_that_reads(run, config, capsys, damage):  # noqa: F811
    run('train', config)
    capsys.readouterr()
    last, named = Path('work_dirs/toy/epoch_2.pth'), Path('work_dirs/toy/last_checkpoint')
    data = bytearray(last.read_bytes())
    if damage == 'gone':
        last.unlink()
    elif damage == 'cut':
        last.write_bytes(data[:1000])
    elif damage == 'flipped':
        value = load(last)['state_dict']['linear.weight'].numpy().tobytes()
        data[data.index(value)] ^= 1
        last.write_bytes(data)
    else:
        named.write_text('')
    run('train', config, '--resume', *EPOCHS)
    said = capsys.readouterr()
    start = 2 if damage.startswith('named') else 1
    assert f'resuming from {Path(f"work_dirs/toy/epoch_{start}.pth").absolute()}' in said.err
    assert f'resumed epoch: {start}, iter: {4 * start}' in said.out
    assert ('not resumed: ' in said.err) == (start == 1)


def test_a_complete_training_names_its_last_checkpoint_again(run, config):  # noqa: F811
    run('train', config)
    named = Path('work_dirs/toy/last_checkpoint')
    named.write_text('')
    run('train', config, '--resume')
    assert Path(named.read_text()) == Path('work_dirs/toy/epoch_2.pth').absolute()


def test_none_that_reads(run, config, capsys):  # noqa: F811
    run('train', config, '--resume', *EPOCHS)
    assert 'no checkpoint in work_dirs/toy: starting anew' in capsys.readouterr().err
    for path in Path('work_dirs/toy').glob('*.pth'):
        path.write_bytes(b'')
    with pytest.raises(SystemExit, match='2'):
        run('train', config, '--resume')
    assert 'no checkpoint in work_dirs/toy can be resumed: ' in capsys.readouterr().err


def test_an_old_checkpoint_goes_after_the_new_one_is_there(run, config, monkeypatch):  # noqa: F811
    """With one that is kept, there is at least one complete checkpoint at any time."""
    seen = []
    remove = os.remove

    def watch(path):
        if str(path).endswith('.pth'):
            last = Path('work_dirs/toy/last_checkpoint').read_text()
            seen.append((Path(path).name, Path(last).name))
        remove(path)

    monkeypatch.setattr(os, 'remove', watch)
    run('train', config, *EPOCHS, 'default_hooks.checkpoint.max_keep_ckpts=1',
        'default_hooks.checkpoint.save_best=None')  # fmt: skip
    assert seen == [('epoch_1.pth', 'epoch_2.pth'), ('epoch_2.pth', 'epoch_3.pth')]


FILLING = """
import os, resource
from pathlib import Path
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class FillDisk(Hook):
    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            size = Path(runner.work_dir, 'epoch_1.pth').stat().st_size // 2
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # its file would have the limit, too
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
"""


def test_a_full_disk(config):  # noqa: F811
    """By a limit on the size of files, which write() reports as it does a full disk."""
    Path('filling.py').write_text(FILLING)
    text = Path(config).read_text().replace("'tests.toy'", "'tests.toy', 'filling'")
    Path(config).write_text(f"{text}custom_hooks = [dict(type='FillDisk')]\n")
    environment = {**ENV, 'PYTHONPATH': f'{ROOT}:.'}
    done = run_python(ROOT / 'tools' / 'train.py', config, *EPOCHS, cwd='.', env=environment)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] < 0
    assert done.returncode == 2, done.stderr
    said = done.stderr.splitlines()[-1]
    assert 'a checkpoint cannot be written to ' in said
    assert said.endswith('--resume')
    assert 'Traceback' not in done.stderr
    files = sorted(path.name for path in Path('work_dirs/toy').iterdir() if path.is_file())
    assert not [name for name in files if name.endswith('.part')]
    path, faults = find_checkpoint('work_dirs/toy')
    assert path.name == 'epoch_1.pth'
    assert not faults


def test_two_trainings_in_one_folder(run, config, capsys):  # noqa: F811
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from mmcen.engine.launch import lock_work_dir
lock_work_dir('work_dirs/toy'); print('held', flush=True); sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b'held\n'
        with pytest.raises(SystemExit, match='2'):
            run('train', config)
        assert 'another training is at work in work_dirs/toy: wait for it' in (
            capsys.readouterr().err
        )
        other.kill()
        other.wait()
        run('train', config)


def test_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / 'a.txt'
    with whole_file(path) as first:
        first.write_text('first')
        with whole_file(path) as second:
            second.write_text('second')
            assert first != second
        assert path.read_text() == 'second'
    assert [p.name for p in tmp_path.iterdir()] == ['a.txt']
    assert path.read_text() == 'first'


def test_what_killed_writers_leave_goes(run, config):  # noqa: F811
    part = Path('work_dirs/toy/.epoch_1.pth.1-a.part')
    part.parent.mkdir(parents=True)
    part.touch()
    run('train', config)
    assert not part.exists()


@pytest.mark.parametrize('how', ['another', 'wider'])
def test_another_model_is_refused(run, config, capsys, how):  # noqa: F811
    run('train', config)
    path = Path('work_dirs/toy/epoch_2.pth')
    checkpoint = load(path)
    weight = checkpoint['state_dict'].pop('linear.weight')
    checkpoint['state_dict']['linear.weight' if how == 'wider' else 'other'] = weight.repeat(2, 2)
    torch.save(checkpoint, path)
    for command in (['train', config, '--resume', *EPOCHS], ['test', config, str(path)]):
        with pytest.raises(SystemExit, match='2'):
            run(*command)
        said = capsys.readouterr().err.splitlines()[-1]
        assert 'error: the checkpoint is of another model (' in said
        assert 'linear.weight' in said


def test_a_loss_that_is_no_number(run, config, capsys):  # noqa: F811
    with pytest.raises(SystemExit, match='2'):
        run(
            'train',
            config,
            '--cfg-options',
            'optim_wrapper.optimizer.lr=1e30',
            'train_cfg.max_epochs=9',
        )
    said = capsys.readouterr().err.splitlines()[-1]
    assert 'error: loss is ' in said
    assert 'in iteration ' in said
    assert 'lower the learning rate' in said


def test_protected_parts_and_others():
    cfg = Config(dict(train_cfg=dict(by_epoch=True, max_epochs=1)))
    launch.protect(cfg)
    assert cfg.train_cfg == dict(type='ExactEpochLoop', max_epochs=1)
    assert cfg.default_hooks.checkpoint == dict(type='SafeCheckpointHook', interval=1)
    assert [hook.type for hook in cfg.custom_hooks] == ['EpochSeedHook', 'FiniteLossHook']
    launch.protect(cfg)
    assert len(cfg.custom_hooks) == 2
    own = dict(
        train_cfg=dict(type='Other'),
        default_hooks=dict(checkpoint=None),
        custom_hooks=[dict(type='EpochSeedHook')],
    )
    cfg = Config(own)
    launch.protect(cfg)
    assert cfg.train_cfg.type == 'Other'
    assert cfg.default_hooks.checkpoint is None


STOPPING = """
import os, signal
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class StopOne(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 1 and get_rank() == 1:
            print('stopped:', os.getpid(), flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.mark.long
def test_a_process_that_hangs_ends_the_job(config):  # noqa: F811
    """Within the timeout and some seconds, with its number."""
    Path('stopping.py').write_text(STOPPING)
    text = Path(config).read_text().replace("'tests.toy'", "'tests.toy', 'stopping'")
    Path(config).write_text(
        f"{text}custom_hooks = [dict(type='StopOne')]\nenv_cfg = dict(dist_cfg=dict(timeout=30))\n"
    )
    command = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
    job = subprocess.Popen(
        [sys.executable, *command, str(ROOT / 'tools/train.py'), config, '--launcher', 'pytorch'],
        env={**os.environ, 'PYTHONPATH': f'{ROOT}:.', 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = []
    for line in job.stdout:
        said.append(line)
        if line.startswith('stopped:'):
            stopped, start = int(line.split()[1]), time.monotonic()
        if 'process 1 of 2 has stopped' in line:
            break
    else:
        pytest.fail(''.join(said))
    assert time.monotonic() - start < 90
    os.kill(stopped, signal.SIGKILL)  # torchrun would do it, after half a minute
    job.stdout.read()
    assert job.wait() != 0
