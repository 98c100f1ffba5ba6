"""A training under a budget through the tools: resumed, deployed, tested, drawn and reported."""

import json
import re
import shutil
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from mmengine.config import Config
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS
from PIL import Image

import mmcen
from mmcen.cli import report
from mmcen.core import exchange_norms, exchanged_share
from mmcen.deploy import deploy
from mmcen.engine.hooks import ExchangeBudgetHook
from mmcen.visualization.run_log import RunLog
from projects.paper import figures
from tests.command import run_python
from tests.training import ENV, KILLER, ROOT, load, train

# Nine steps of three epochs; the ramp begins after the first, and its last choice is the eighth.
CONFIG = f"""
_base_ = '{ROOT}/configs/cen/rooms_lwrefinenet_r18.py'
custom_imports = dict(imports=['mmcen', 'killer'])
data = dict(size=(32, 48))
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(length=6, **data))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(length=2, **data))
test_dataloader = val_dataloader
model = dict(
    backbone=dict(base_channels=8),
    exchange=dict(budget=0.3),
    decode_head=dict(in_channels=[8, 16, 32, 64], channels=8),
)
train_cfg = dict(max_epochs=3, val_interval=3)
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=-1, save_best=None))
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='ExchangeBudgetHook', memory=3,
         schedule=dict(begin=0.1, end=0.95, interval=2, ramp=0.1)),
    dict(type='ExchangeMonitorHook', interval=1),
    dict(type='KillOnce'),
]
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with a config, and the work directory of its whole training."""
    folder = tmp_path_factory.mktemp('budget')
    (folder / 'small.py').write_text(CONFIG)
    (folder / 'killer.py').write_text(KILLER)
    train(folder, 'small.py', '--work-dir', 'run')
    return folder


@pytest.fixture(scope='module')
def state(folder):
    return load(folder / 'run/epoch_3.pth')['state_dict']


@pytest.fixture
def model(folder, state, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    model = MODELS.build(Config.fromfile(folder / 'small.py', import_custom_modules=False).model)
    model.load_state_dict(state)
    return model.eval()


def test_resumed_in_the_middle_of_the_ramp_is_bit_identical(folder, state):
    (folder / 'kill').touch()
    killed = train(folder, 'small.py', '--work-dir', 'broken', check=False)
    assert killed.returncode == -signal.SIGKILL
    start, middle = (load(folder / f'run/epoch_{n}.pth')['state_dict'] for n in (1, 2))
    chosen = [key for key in state if key.endswith('selection.chosen')]
    counts = [sum(int(one[key].sum()) for key in chosen) for one in (start, middle, state)]
    assert counts[0] < counts[1] < counts[2]  # the ramp goes on in every epoch
    train(folder, 'small.py', '--work-dir', 'broken', '--resume')
    resumed = load(folder / 'broken/epoch_3.pth')
    for key, value in state.items():
        assert torch.equal(value, resumed['state_dict'][key]), key
    whole, broken = (RunLog(folder / name).training for name in ('run', 'broken'))
    for name in ('budget/wanted', 'budget/met', 'churn'):
        np.testing.assert_array_equal(whole[name][1], broken[name][1], err_msg=name)


def test_two_processes_choose_alike_and_resume_bit_identically(folder):
    """The checkpoint is written by one of them, and each measures effects on frames of its own."""
    options = ('--cfg-options', 'train_dataloader.batch_size=1')
    train(folder, 'small.py', '--work-dir', 'two', *options, processes=2)
    again = folder / 'again'
    again.mkdir()
    shutil.copy(folder / 'two/epoch_2.pth', again)
    (again / 'last_checkpoint').write_text(str(again / 'epoch_2.pth'))
    train(folder, 'small.py', '--work-dir', 'again', '--resume', *options, processes=2)
    whole, resumed = (
        load(folder / name / 'epoch_3.pth')['state_dict'] for name in ('two', 'again')
    )
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key
    before = load(again / 'epoch_2.pth')['state_dict']
    chosen = [key for key in whole if key.endswith('selection.chosen')]
    assert any(not torch.equal(before[key], whole[key]) for key in chosen)


def test_the_log_has_budget_and_churn(folder):
    log = RunLog(folder / 'run')
    wanted, met, churn = (log.training[k][1] for k in ('budget/wanted', 'budget/met', 'churn'))
    assert wanted[0] == pytest.approx(0.1, abs=0.01)
    assert wanted[-1] == pytest.approx(0.3)
    assert met[-1] == pytest.approx(0.3, abs=0.02)  # a whole number of channels in each layer
    assert (met > 0).all()
    assert churn.max() > 0
    assert log.training['exchanged/rgb'][1][-1] == pytest.approx(met[-1])


def test_the_mask_is_in_the_checkpoint_and_fixed_at_test(folder, model):
    for layer, mask in RunLog(folder / 'run').masks.items():
        (norm,) = (n for name, n in exchange_norms(model) if name == layer)
        assert np.array_equal(mask, norm.exchange_mask().flatten(0, 1).numpy())
    before = exchanged_share(model)
    with torch.no_grad():
        model.test_step(frames(model))
    assert torch.equal(before, exchanged_share(model))
    words = ('small.py', 'run/epoch_3.pth', '--work-dir', 'tested')
    place = dict(cwd=folder, env={**ENV, 'PYTHONPATH': str(folder)})
    done = run_python(ROOT / 'tools' / 'test.py', *words, **place)
    assert done.returncode == 0, done.stderr[-4000:]
    (scores,) = (folder / 'tested').glob('*/*.json')
    validated = RunLog(folder / 'run').validation['mIoU'][1][-1]
    assert json.loads(scores.read_text())['mIoU'] == pytest.approx(validated)


def frames(model):
    torch.manual_seed(1)
    return dict(inputs=dict(rgb=255 * torch.rand(1, 3, 32, 64), depth=6 * torch.rand(1, 1, 32, 64)))


def test_deployed_equals_the_model(model):
    inputs = frames(model)['inputs']
    network = deploy(model)
    with torch.no_grad():
        found = network(*inputs.values())
        folded = model.data_preprocessor(dict(inputs=inputs))['inputs']
        wanted = model.encode_decode(folded, [dict(img_shape=(32, 64))]).chunk(len(found), 1)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    'args',
    [
        ('mask', 'small.py', 'run/epoch_3.pth'),
        ('proportions', 'small.py', 'run/epoch_3.pth'),
        ('scales', 'small.py', 'run'),
        ('exchange', 'run'),
    ],
)
def test_figures(folder, monkeypatch, capsys, args):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, 'argv', ['figures.py', *args, '--out', f'{args[0]}.png'])
    assert figures.main() == 0, capsys.readouterr()
    picture = np.asarray(Image.open(f'{args[0]}.png').convert('RGB'))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_the_report(folder):
    text = report.page(RunLog(folder / 'run'))
    assert re.findall(r'<h2 id="(exchange|mask)"', text) == ['exchange', 'mask']
    assert 'Nothing' not in text
    groups = report.training_groups(RunLog(folder / 'run'))
    assert {'budget/wanted', 'budget/met', 'exchanged/rgb'} <= groups['exchanged share'].keys()
    assert list(groups['churn']) == ['churn']


@pytest.mark.parametrize(
    ('shares', 'sentence'),
    [
        ([0, 0], 'Nothing was exchanged in this run'),
        ([0.1, 0], 'Nothing is exchanged at the end of this run'),
        ([0, 0.1], ''),
    ],
)
def test_a_report_without_exchange_says_so_at_its_top(tmp_path, shares, sentence):
    (tmp_path / '1/vis_data').mkdir(parents=True)
    lines = [
        {'loss': 1.0, 'exchanged/rgb': share, 'exchanged/depth': 0, 'iter': i, 'step': i}
        for i, share in enumerate(shares, 1)
    ]
    text = '\n'.join(map(json.dumps, lines))
    (tmp_path / '1/vis_data/scalars.json').write_text(text)
    before, _, _ = report.page(RunLog(tmp_path)).partition('<h2')
    assert ('Nothing' in before) == bool(sentence)
    assert sentence in before


def test_an_averaged_network_that_would_keep_the_first_choice_is_refused():
    model = mmcen.convert(torchvision.models.resnet18(), modalities=2, budget=0.3)
    ema = ExponentialMovingAverage(model, update_buffers=True)
    runner = SimpleNamespace(model=model, hooks=[SimpleNamespace(ema_model=ema)])
    with pytest.raises(ValueError, match='EMAHook averages no choice .* set update_buffers=False'):
        ExchangeBudgetHook().before_train(runner)
