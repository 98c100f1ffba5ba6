"""projects/paper/benchmark.py on translation: the official code's step ends with our weights."""

import json

import pytest
import torch
from mmengine.config import Config

from mmcen.layers import ExchangeNorm
from projects.paper.benchmarking.list_of_streams import StreamNorms
from projects.paper.benchmarking.translation import TranslationWorkload, tasks_of
from projects.paper.benchmarking.workload import quiet
from tests.command import run_python
from tests.optional import need_mmagic
from tests.training import ROOT

need_mmagic()

TOOL = ROOT / 'projects' / 'paper' / 'benchmark.py'

CONFIG = f"""
_base_ = ['{ROOT}/configs/_base_/models/cen_pix2pix_small.py',
          '{ROOT}/configs/_base_/default_runtime.py']
model = dict(
    tasks=[dict(name='rgb', inputs=['normal', 'depth'])],
    network=dict(downs=4, base_channels=6, dropout_ratio=0.0),
    discriminator=dict(base_channels=4),
)
sgd = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.02))
optim_wrapper = dict(constructor='mmagic.MultiOptimWrapperConstructor',
                     network=sgd, discriminators=sgd, ensemble=sgd)
custom_hooks = [dict(type='SparsityHook', coefficient=1e-3)]
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'small.py'
    path.write_text(CONFIG)
    return path


def workload(config, **options):
    quiet()
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(options)
    return TranslationWorkload(cfg, (32, 32), 2, 'cpu', 'fp32', False, 1)


def flat(model):
    """Weights of all convolutions, scales of all norms and the scores."""
    norms = (ExchangeNorm, StreamNorms)
    found = [model.ensemble.alpha.flatten()]
    for module in model.modules():
        if isinstance(module, norms):
            found.append(
                torch.cat([p.flatten() for n, p in module.named_parameters() if 'weight' in n])
            )
        elif isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            found.append(module.weight.flatten())
    return torch.cat(found)


@pytest.mark.parametrize('rival', ['list_of_streams', 'list_detached'])
@pytest.mark.parametrize('streams', [2, 3])
def test_two_passes_end_where_one_does(config, rival, streams):
    """Without dropout both passes of the official step give the same images."""
    tasks = {'model.tasks': [dict(name='rgb', inputs=['normal', 'depth', 'edge'][:streams])]}
    work = workload(config, **tasks)
    ours, theirs = work.build('ours'), work.build(rival)
    before = flat(ours.model).clone()
    torch.testing.assert_close(ours.run('inference'), theirs.run('inference'))
    for variant in (ours, theirs):
        variant.prepare('train_step')
        for _ in range(2):
            variant.run('train_step')
    after = flat(ours.model)
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after, flat(theirs.model), rtol=1e-3, atol=2e-5)


def test_grids():
    assert tasks_of('streams=2') == [dict(name='y', inputs=['x0', 'x1'])]
    assert tasks_of('tasks=2') == [dict(name=name, inputs=['y']) for name in ('x0', 'x1')]


@pytest.mark.long
def test_the_tool(config, tmp_path):
    command = [
        TOOL, config, '--shape', '32', '32',
        '--batch', '1', '--runs', '2', '--warmup', '0', '--threads', '1', '--compare',
        'list_of_streams', '--streams', '1', '2', '--tasks', '1', '2', '--cycle', '3',
        '--out', str(tmp_path / 'out.json'),
    ]  # fmt: skip
    done = run_python(*command)
    assert done.returncode == 0, done.stderr[-3000:]
    for text in (
        'train step, list_of_streams',
        'train step by number of streams',
        'train step by number of tasks',
        'train step of a cycle of 3 flows / 3 x one flow:',
    ):
        assert text in done.stdout
    result = json.loads((tmp_path / 'out.json').read_text())
    assert result['comparison']['difference'] < 1e-5
    assert result['streams']['2']['added']['median'] > -1
    assert list(result['tasks']) == ['1', '2']
    assert result['cycle']['ratio']['median'] > 0


TWO = """
_base_ = 'small.py'
model = dict(tasks=[dict(name=name, inputs=['rgb', 'normal']) for name in ('depth', 'edge')])
"""


@pytest.mark.parametrize(
    ('text', 'rival', 'message'),
    [
        (CONFIG, 'nobody', '--compare: nobody is none of exchange_off, list_of_streams'),
        (TWO, 'list_of_streams', 'which has one task, the model has'),
    ],
)
def test_what_cannot_be_measured(config, text, rival, message):
    path = config.with_name('other.py')
    path.write_text(text)
    command = [TOOL, path, '--compare', rival]
    done = run_python(*command)
    assert done.returncode == 2
    assert message in done.stderr
