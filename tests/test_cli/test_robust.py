"""``mmcen test`` on some modalities, and on all subsets and corruptions."""

import csv
import json
import sys
from itertools import combinations

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image

from mmcen.cli.test import main
from mmcen.engine import robust
from mmcen.evaluation import robustness
from mmcen.evaluation.robustness import expectation
from tests.training import ROOT

CONFIG = f"""
_base_ = '{ROOT}/configs/cen/rooms_lwrefinenet_r18.py'
val_dataloader = dict(num_workers=0, persistent_workers=False, batch_size=2,
                      dataset=dict(length=2, size=(32, 48)))
test_dataloader = val_dataloader
model = dict(backbone=dict(base_channels=8),
             decode_head=dict(in_channels=[8, 16, 32, 64], channels=8))
custom_hooks = []
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'small.py').write_text(CONFIG)
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile('small.py').model)
    torch.save(dict(state_dict=model.state_dict(), meta={}), 'a.pth')
    return tmp_path


def scores(folder, name):
    (file,) = (folder / name).glob('*/*.json')
    return json.loads(file.read_text())


def test_all_rows_and_their_summary(folder, monkeypatch, capsys):
    monkeypatch.setattr(robustness, 'SHARES', (0.5,))
    monkeypatch.setattr(robustness, 'NOISES', (0.5,))
    args = ['small.py', 'a.pth', '--robust', '--work-dir', 'run']
    main(args)
    printed = capsys.readouterr().out
    out = folder / 'run/robust/a'
    rows = {row['case']: row for row in csv.DictReader((out / 'robust.csv').open())}
    assert list(rows)[:3] == ['rgb + depth', 'rgb', 'depth']
    values = {name: float(row['mIoU']) for name, row in rows.items()}
    of_cases = [values[name] for name, row in rows.items() if row['group'] != 'summary']
    assert values['worst case'] == min(of_cases)
    mean = np.mean([values[name] for name in ('rgb + depth', 'rgb', 'depth')])
    assert values['mean over subsets'] == pytest.approx(mean)
    assert (out / 'robust.md').read_text() in printed
    assert 'a.pth, 2 test frames' in printed
    assert len(np.unique(np.asarray(Image.open(out / 'robust.png').convert('L')))) > 20
    # a row of the subset is the test of the subset
    main(['small.py', 'a.pth', '--present', 'depth', '--work-dir', 'depth'])
    assert scores(folder, 'depth')['mIoU'] == pytest.approx(values['depth'], abs=0.01)
    main(['small.py', 'a.pth', '--work-dir', 'whole'])
    whole = scores(folder, 'whole')
    assert whole['mIoU'] == pytest.approx(values['rgb + depth'], abs=0.01)
    assert 'rgb/mIoU' in whole
    assert 'rgb/mIoU' not in scores(folder, 'depth')
    # a row that is done is not run again
    kept = json.loads((out / 'robust.json').read_text())
    del kept['rows']['rgb']
    kept['rows']['depth']['mIoU'] = 12.0
    (out / 'robust.json').write_text(json.dumps(kept))
    capsys.readouterr()
    main(args)
    assert f'{len(of_cases)} rows, {len(of_cases) - 1} are done' in capsys.readouterr().out
    again = {row['case']: row['mIoU'] for row in csv.DictReader((out / 'robust.csv').open())}
    assert again['depth'] == '12.0'
    assert again['rgb'] == rows['rgb']['mIoU']


def test_ctrl_c_ends_with_the_command_that_goes_on(folder, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    command = ['mmcen', 'test', 'small.py', 'a.pth', '--robust']
    monkeypatch.setattr(sys, 'argv', command)
    monkeypatch.setattr(robust, 'cases', interrupt)
    with pytest.raises(SystemExit) as stopped:
        main(command[2:])
    assert stopped.value.code == 130
    assert capsys.readouterr().err.endswith(f'stopped: go on with {" ".join(command)}\n')


def test_the_expectation_is_that_of_drawn_failures():
    names, p = ('a', 'b', 'c'), 0.2
    values = {s: 10.0 * len(s) + s.count('a') for n in (1, 2, 3) for s in combinations(names, n)}
    there = np.random.default_rng(0).random((200_000, 3)) >= p
    drawn = [values[tuple(np.array(names)[one])] for one in there[there.any(1)][:50_000]]
    assert expectation(values, p) == pytest.approx(np.mean(drawn), rel=2e-3)


@pytest.mark.parametrize(
    ('args', 'sentence'),
    [
        (('--present', 'ir'), "modalities ['ir'] are unknown: choose of ['rgb', 'depth']"),
        (('--treat-empty', 'absent'), 'SyntheticRooms does not load by LoadModalities, which'),
        (('--robust', '--present', 'rgb'), '--robust runs alone: leave out --present'),
    ],
)
def test_what_is_wrong_takes_one_sentence(folder, capsys, args, sentence):
    with pytest.raises(SystemExit):
        main(['small.py', 'a.pth', *args])
    assert sentence in capsys.readouterr().err
