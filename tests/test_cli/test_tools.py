"""The command line tools: help, one sentence for what is wrong, training, testing, processes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path
from socket import socket
from types import ModuleType
from uuid import uuid4

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, OPTIM_WRAPPERS

from mmcen.engine import launch
from mmcen.engine.amp import BFloat16OptimWrapper
from tests.toy import CONFIG

TOOLS = Path(__file__).parents[2] / 'tools'


@pytest.fixture
def config(tmp_path, monkeypatch) -> str:
    """The toy's config, in an empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')
    Path('toy.py').write_text(CONFIG)
    return 'toy.py'


@pytest.fixture
def run(monkeypatch):
    """Calls a tool in this process with the given arguments.

    mmengine shares logs between experiments of one name, which it makes from the second.
    """

    def call(tool: str, *args: str) -> None:
        if 'toy.py' in args:
            Path('toy.py').write_text(f'{CONFIG}experiment_name = "{uuid4()}"')
        monkeypatch.setattr(sys, 'path', [*sys.path])
        monkeypatch.setattr(sys, 'argv', [f'{tool}.py', *args])
        load(tool).main(prog=f'{tool}.py')

    return call


def load(tool: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(tool, TOOLS / f'{tool}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ('tool', 'options'),
    [
        ('train', ['--work-dir', '--resume', '--amp', '--cfg-options', '--launcher']),
        ('test', ['--work-dir', '--out', '--show', '--show-dir', '--wait-time', '--tta']),
    ],
)
def test_help_names_every_option_of_mmseg(run, capsys, tool, options):
    with pytest.raises(SystemExit, match='0'):
        run(tool, '--help')
    shown = capsys.readouterr().out
    assert all(f'{option} ' in shown or f'{option}]' in shown for option in options)
    assert '--local_rank' not in shown


@pytest.mark.parametrize(
    ('tool', 'args', 'sentence'),
    [
        ('train', ['no.py'], 'config no.py does not exist: see configs/cen/ for what there is'),
        (
            'test',
            ['toy.py', 'no.pth'],
            'checkpoint no.pth does not exist: train one with `mmcen train`',
        ),
        (
            'test',
            ['toy.py', 'toy.py', '--tta'],
            '--tta needs tta_pipeline and tta_model, which the config does not set',
        ),
        (
            'train',
            ['toy.py', '--amp', '--cfg-options', 'optim_wrapper.type=Other'],
            '--amp replaces an OptimWrapper, and optim_wrapper.type is Other: leave --amp out',
        ),
        (
            'train',
            ['toy.py', '--launcher', 'pytorch'],
            '--launcher pytorch is for processes that torchrun starts: '
            'use torchrun --nproc_per_node N tools/train.py, or leave it out',
        ),
    ],
)
def test_one_sentence_for_what_is_wrong(run, capsys, config, tool, args, sentence):
    with pytest.raises(SystemExit, match='2'):
        run(tool, *args)
    assert capsys.readouterr().err.splitlines()[-1] == f'{tool}.py: error: {sentence}'


@pytest.mark.parametrize(
    ('name', 'absent', 'sentence'),
    [
        ('r18_cpu', None, 'there is no split file data/nyuv2/splits/train.txt: make the data set'),
        ('efflite0', 'timm', "tf_efficientnet_lite0 is a network of timm's: pip install timm"),
    ],
)
def test_data_and_extras_that_are_missing(run, capsys, config, monkeypatch, name, absent, sentence):
    monkeypatch.delenv('MMCEN_DATA', raising=False)
    if absent:
        monkeypatch.setattr('mmcen.models.backbones.cen_timm.timm', None)
    with pytest.raises(SystemExit, match='2'):
        run('train', str(TOOLS.parent / f'configs/cen/nyud_lwrefinenet_{name}.py'))
    assert f'train.py: error: {sentence}' in capsys.readouterr().err


def test_train_resume_and_test(run, capsys, config):
    run('train', config, '--cfg-options', 'train_cfg.max_epochs=1')
    said = capsys.readouterr().out
    last, best = Path('work_dirs/toy/epoch_1.pth'), Path('work_dirs/toy/best_error_epoch_1.pth')
    assert 'Training is done, its results are in ' in said
    assert f'last checkpoint  {last.absolute()}' in said
    assert f'best checkpoint  {best.absolute()}' in said
    assert f'mmcen test toy.py {best.absolute()}' in said

    run('train', config, '--resume')
    said = capsys.readouterr().out
    assert 'resumed epoch: 1, iter: 4' in said
    assert torch.load('work_dirs/toy/epoch_2.pth', weights_only=False)['meta']['iter'] == 8

    run('test', config, str(last), '--work-dir', 'elsewhere')
    assert 'Epoch(test) [4/4]    error: ' in capsys.readouterr().out
    assert list(Path('elsewhere').iterdir())


@pytest.mark.parametrize('fast', [True, False])
def test_amp_trains_in_bfloat16_on_a_cpu_that_has_it(run, config, monkeypatch, capsys, fast):
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: {'avx512_bf16': fast})
    seen = set()
    forward = MODELS.get('ToyModel').forward

    def watch(self: BaseModel, inputs, data_samples, mode='tensor'):
        if mode == 'loss':
            seen.add(self.linear(inputs).dtype)
        return forward(self, inputs, data_samples, mode)

    monkeypatch.setattr(MODELS.get('ToyModel'), 'forward', watch)
    run('train', config, '--amp')
    assert seen == {torch.bfloat16 if fast else torch.float32}
    assert f'{"bfloat16" if fast else "float32"}: this cpu has' in capsys.readouterr().out
    saved = torch.load('work_dirs/toy/epoch_2.pth', weights_only=False)['state_dict']
    assert {value.dtype for value in saved.values()} == {torch.float32}


def test_bfloat16_wrapper_steps_as_the_plain_one_but_for_rounding():
    models = [torch.nn.Linear(4, 1) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    x = torch.randn(8, 4)
    for model, kind in zip(models, ['OptimWrapper', 'BFloat16OptimWrapper'], strict=True):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        wrapper = OPTIM_WRAPPERS.build(
            {'type': kind, 'optimizer': optimizer, 'accumulative_counts': 2}
        )
        assert isinstance(wrapper, BFloat16OptimWrapper) == (kind != 'OptimWrapper')
        before = model.weight.detach().clone()
        for count in range(2):
            with wrapper.optim_context(model):
                loss = model(x).square().mean()
            wrapper.update_params(loss)
            assert torch.equal(model.weight, before) == (count == 0)
    torch.testing.assert_close(models[1].weight, models[0].weight, atol=1e-2, rtol=0)
    assert not torch.equal(models[1].weight, models[0].weight)


def test_amp_on_a_gpu_is_mmengines(monkeypatch):
    monkeypatch.setattr(launch, 'get_device', lambda: 'cuda')
    cfg = Config({'optim_wrapper': {'type': 'OptimWrapper', 'optimizer': {'type': 'SGD'}}})
    for _ in range(2):  # asked twice, as with a config that has it already
        launch.enable_amp(cfg, ArgumentParser())
        assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
        assert cfg.optim_wrapper.loss_scale == 'dynamic'


def test_options_of_testing_reach_the_config():
    cfg = Config(
        {
            'model': {'type': 'Segmentor'},
            'tta_model': {'type': 'SegTTAModel'},
            'tta_pipeline': ['flip'],
            'test_dataloader': {'dataset': {'pipeline': []}},
            'test_evaluator': [{'type': 'IoUMetric'}, {'type': 'CityscapesMetric'}],
            'visualizer': {'type': 'SegLocalVisualizer'},
        }
    )
    launch.enable_tta(cfg, ArgumentParser())
    launch.write_predictions(cfg, 'maps')
    launch.draw_predictions(cfg, show=False, folder='pictures', wait_time=1)
    assert cfg.model == {'type': 'SegTTAModel', 'module': {'type': 'Segmentor'}}
    assert cfg.test_dataloader.dataset.pipeline == ['flip']
    assert [metric.get('output_dir') for metric in cfg.test_evaluator] == ['maps', None]
    assert cfg.visualizer.save_dir == 'pictures'
    hook = {'type': 'SegVisualizationHook', 'draw': True, 'show': False, 'wait_time': 1}
    assert cfg.default_hooks.visualization == hook


@pytest.mark.long
def test_two_processes_on_cpus_train_as_one(config, run, tmp_path):
    """From another folder, not installed: gloo, the sampler's halves, averaged gradients."""
    with socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHON': sys.executable, 'PORT': port}
    for name in ('LOCAL_RANK', 'PYTHONPATH'):
        environment.pop(name, None)
    args = [config, '2', '--work-dir', 'two', '--cfg-options', 'train_dataloader.batch_size=2']
    done = subprocess.run(
        ['bash', TOOLS / 'dist_train.sh', *args],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count('Training is done') + done.stdout.count('Training is done') == 1
    run('train', config, '--work-dir', 'one')
    one, two = (
        torch.load(tmp_path / name / 'epoch_2.pth', weights_only=False) for name in ('one', 'two')
    )
    assert one['meta']['iter'] == two['meta']['iter'] == 8
    for key, value in one['state_dict'].items():
        torch.testing.assert_close(two['state_dict'][key], value)


@pytest.mark.parametrize(
    ('script', 'args', 'command'),
    [
        (
            'slurm_train.sh',
            ['part', 'name', 'c.py', '--amp', '--work-dir', 'a b'],
            ['train.py', 'c.py', '--launcher', 'slurm', '--amp', '--work-dir', 'a b'],
        ),
        (
            'slurm_test.sh',
            ['part', 'name', 'c.py', 'c.pth', '--tta'],
            ['test.py', 'c.py', 'c.pth', '--launcher', 'slurm', '--tta'],
        ),
    ],
)
def test_slurm_scripts_hand_every_argument_on(tmp_path, script, args, command):
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    srun.chmod(0o755)
    environment = {
        'PATH': f'{tmp_path}:{os.environ["PATH"]}',
        'GPUS': '8',
        'SRUN_ARGS': '-q a -w b',
    }
    done = subprocess.run(
        ['bash', TOOLS / script, *args], env=environment, capture_output=True, text=True
    )
    words = done.stdout.splitlines()
    assert '--partition=part' in words
    assert '--ntasks=8' in words
    assert words[words.index('-q') :][:4] == ['-q', 'a', '-w', 'b']
    assert [Path(words[-len(command)]).name, *words[1 - len(command) :]] == command


@pytest.mark.parametrize('script', sorted(path.name for path in TOOLS.glob('*.sh')))
def test_scripts_without_arguments_say_their_usage(script):
    done = subprocess.run(['bash', TOOLS / script], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f'Usage: tools/{script} ')
