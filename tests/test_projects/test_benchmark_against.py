"""benchmark.py --against: both sides are measured alike, and nothing is left behind."""

import json
import os
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from projects.paper import benchmark
from projects.paper.benchmarking import against
from tests.command import run_python
from tests.optional import need_mmagic
from tests.test_projects.test_benchmark import CONFIG, ROOT

EVALUATOR = """
train_dataloader = dict(batch_size=2)
val_evaluator = dict(type='StreamIoUMetric')
"""


@pytest.fixture
def config(tmp_path):
    file = tmp_path / 'tiny.py'
    file.write_text(CONFIG + EVALUATOR)
    return str(file)


@pytest.fixture
def head():
    """The hash of HEAD; skips outside a git checkout."""
    try:
        return against.find_commit('HEAD')
    except ValueError as error:
        pytest.skip(str(error))


@pytest.mark.long
def test_command_line(config, head, tmp_path):
    """One run against HEAD: a table, all figures, and no worktree at the end."""
    out = tmp_path / 'result.json'
    command = ['projects/paper/benchmark.py', config, '--against', 'HEAD', '--out', out]
    command += ['--shape', '32', '64', '--ori-size', '50', '90', '--threads', '1', '--runs', '1']
    command += ['--steps', '2', '--warmup', '1', '--device', 'cpu', '--clock', 'cpu']
    command += ['--cfg-options', 'optim_wrapper.optimizer.lr=1e-4']
    temporary = {**os.environ, 'TMPDIR': str(tmp_path)}
    done = run_python(*command, env=temporary)
    assert done.returncode == 0, done.stderr
    assert 'test frame, theirs' in done.stdout
    result = json.loads(out.read_text())
    expected = dict(batch=2, ori_size=[50, 90], runs=1, steps=2, threads=1, against=head)
    assert expected.items() <= result['setting'].items()
    assert result['setting']['shapes'] == {'train_step': [32, 64], 'test_frame': [32, 64]}
    for task in against.TASKS:
        rows = result['against'][task]
        for name in ('ours', 'theirs'):
            assert [len(times) for times in rows[name]['times']] == [2]
            assert rows[name]['memory'] > 2**20
        assert rows['ratio']['median'] > 0
        assert 0.5 < rows['memory_ratio']['median'] < 2
    assert not list(tmp_path.glob('mmcen-against-*'))


@pytest.mark.long
def test_translation():
    """A side measures a translator too, without the FID that needs weights."""
    need_mmagic()
    options = {
        'model.network.downs': 4,
        'model.network.base_channels': 6,
        'model.discriminator.base_channels': 4,
    }
    config = ROOT / 'configs/cen/taskonomy_shade-texture_to_rgb.py'
    job = dict(tree=str(ROOT), config=str(config), cfg_options=options, shape=[32, 32], batch=2)
    job |= dict(warmup=0, steps=1, threads=1, device='cpu', clock='wall', precision='bf16')
    for task in against.TASKS:
        result = against.run_side(job | dict(task=task, channels_last=True, ori_size=[32, 32]), '')
        assert len(result['times']) == 1


@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError])
def test_the_worktree_goes(head, error):
    trees = []

    def fail():
        with against.worktree(head) as tree:
            assert (tree / 'mmcen' / '__init__.py').is_file()
            trees.append(tree)
            raise error

    with pytest.raises(error):
        fail()
    assert not trees[0].parent.exists()
    assert str(trees[0]) not in (against._git('worktree', 'list') or '')


def test_sizes_of_configs():
    """Batch and sizes are the config's: crops, resized and whole frames, data sets with a size."""
    args = benchmark.argparse.Namespace(batch=None, shape=None, ori_size=(480, 640))
    expected = {
        'nyud_lwrefinenet_efflite0': (8, [160, 208], [160, 208]),
        'nyud_refinenet_r101': (6, [500, 500], [480, 640]),
        'taskonomy_shade-texture_to_rgb': (1, [256, 256], [256, 256]),
        'saliency_rooms_lwrefinenet_r18': (8, [96, 128], [96, 128]),
    }
    for name, (batch, train, test) in expected.items():
        cfg = Config.fromfile(ROOT / f'configs/cen/{name}.py')
        sizes = against.setting(cfg, args)
        assert sizes['shapes'] == {'train_step': train, 'test_frame': test}, name
        assert sizes['batch'] == batch, name


def test_the_same_config_in_another_tree(tmp_path):
    outside = tmp_path / 'own.py'
    assert against.config_in(tmp_path, outside, 'abc') == outside.resolve()
    ours = ROOT / 'configs/cen/nyud_refinenet_r101.py'
    with pytest.raises(ValueError, match=r'nyud_refinenet_r101.py does not exist at abc: give a'):
        against.config_in(tmp_path, ours, 'abc')
    theirs = tmp_path / 'configs/cen/nyud_refinenet_r101.py'
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    assert against.config_in(tmp_path, ours, 'abc') == theirs


@pytest.mark.long
def test_a_process_that_fails_is_reported(tmp_path):
    job = dict(tree=str(tmp_path), task='train_step')
    with pytest.raises(RuntimeError, match='train_step of theirs ended with 1:'):
        against.run_side(job, 'theirs')


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--against', 'nonsense'], "--against: unknown commit 'nonsense'"),
        (['--against', 'HEAD', '--data'], '--data is not for --against: leave --data out'),
        (['--against', 'HEAD', '--streams', '2'], '--streams is not for --against'),
        (['--ori-size', '4', '4'], '--ori-size is for --against: give --against as well'),
        (['--against', 'HEAD', '--batch', '1'], 'size of a train step: give --shape'),
    ],
)
def test_complaints(arguments, message, config, request, monkeypatch, capsys):
    if '--against' in arguments:
        request.getfixturevalue('head')
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', config, *arguments])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert message in capsys.readouterr().err


def test_no_git_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(against, 'ROOT', Path(tmp_path))
    with pytest.raises(ValueError, match='is not a git checkout, measure in a clone'):
        against.find_commit('HEAD')
