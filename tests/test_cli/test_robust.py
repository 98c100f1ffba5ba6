"""``mmcen test`` on some modalities, and on all subsets and corruptions."""

import csv
import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image

from mmcen.cli.test import main
from mmcen.engine import launch, robust
from mmcen.engine.present import predict_from
from mmcen.evaluation import robustness
from mmcen.evaluation.robustness import expectation
from tests.training import ENV, ROOT, load

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
    meta = dict(dataset_meta=dict(classes=[str(i) for i in range(10)]))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), 'a.pth')
    return tmp_path


def scores(folder, name):
    (file,) = (folder / name).glob('[0-9]*/[0-9]*.json')
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


TASKS = """
_base_ = '{root}/configs/cen/{config}.py'
val_dataloader = dict(num_workers=0, persistent_workers=False, batch_size=2,
                      dataset=dict(length=2, size=(64, 64)))
test_dataloader = val_dataloader
custom_hooks = []
"""


def folder_of(config, folder, monkeypatch):
    monkeypatch.chdir(folder)
    Path('tasks.py').write_text(TASKS.format(root=ROOT, config=config))
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile('tasks.py').model)
    torch.save(dict(state_dict=model.state_dict(), meta={}), 'b.pth')
    monkeypatch.setattr(robustness, 'SHARES', (0.5,))
    monkeypatch.setattr(robustness, 'NOISES', ())
    main(['tasks.py', 'b.pth', '--robust', '--work-dir', 'run'])
    table = Path('run/robust/b/robust.csv').read_text().splitlines()
    return {row['case']: row for row in csv.DictReader(table)}


def test_a_cycle_has_a_table_for_each_task(tmp_path, monkeypatch):
    pytest.importorskip('mmagic')
    rows = folder_of('rooms_cycle_depth-normal-shade', tmp_path, monkeypatch)
    for task in ('reshading', 'normal', 'depth_zbuffer'):
        assert Path(f'run/robust/b/robust_{task}.png').is_file()
        own = [name for name, row in rows.items() if row['group'] == 'subsets']
        measured = [name for name in own if rows[name][f'{task}/MAE']]
        assert measured == [name for name in own if name != task]  # not from itself alone
    # no row of corruptions: a corrupted input would also be a corrupted target
    assert {row['group'] for row in rows.values()} == {'subsets', 'summary'}
    main(['tasks.py', 'b.pth', '--present', 'normal', '--work-dir', 'normal'])
    found = scores(tmp_path, 'normal')
    assert found['reshading/MAE'] == pytest.approx(float(rows['normal']['reshading/MAE']))
    assert 'normal/MAE' not in found


def test_several_tasks_have_a_table_each(tmp_path, monkeypatch):
    pytest.importorskip('mmagic')
    rows = folder_of('rooms_rgb-depth_to_semseg-normal', tmp_path, monkeypatch)
    worst = rows['worst case']
    cases = [row for row in rows.values() if row['group'] != 'summary']
    assert float(worst['normal/MAE']) == max(float(row['normal/MAE']) for row in cases)
    mean = min(float(row['segment_semantic/mIoU']) for row in cases)
    assert float(worst['segment_semantic/mIoU']) == mean
    assert 'depth_zbuffer: missing pixels 50%' in rows


def test_saliency_from_colour_alone(tmp_path, monkeypatch):
    rows = folder_of('saliency_rooms_lwrefinenet_r18', tmp_path, monkeypatch)
    assert rows['rgb']['MAE'] != rows['rgb + depth']['MAE']
    assert not rows['rgb']['pseudo/MAE']  # it is made of colour and depth
    assert rows['rgb + depth']['pseudo/MAE']


FOLDERS = """
_base_ = '{root}/configs/cen/rooms_lwrefinenet_r18.py'
model = dict(backbone=dict(base_channels=8), exchange=dict(_delete_=True, budget=0.4),
             decode_head=dict(in_channels=[8, 16, 32, 64], channels=8, num_classes=3))
custom_hooks = []
pipeline = [dict(type='LoadModalities'),
            dict(type='ForEachModality', only=['depth'], transforms=[]),
            dict(type='LoadLabel'), dict(type='PackModalities')]
test_dataloader = dict(num_workers=0, persistent_workers=False, batch_size=2, dataset=dict(
    _delete_=True, type='RGBDFolderDataset', data_root='.', ann_file='frames.txt',
    pipeline=pipeline,
    modalities=[dict(name='rgb', dir='rgb', suffix='.png'),
                dict(name='depth', dir='depth', suffix='.png', unit='mm')],
    labels=dict(dir='labels', suffix='.png'), metainfo=dict(classes=('a', 'b', 'c'))))
tta_pipeline = [dict(type='LoadModalities'), dict(type='LoadLabel'), dict(
    type='TestTimeAug', transforms=[[dict(type='ForEachModality', transforms=[
        dict(type='RandomFlip', prob=p, direction='horizontal')]) for p in (0.0, 1.0)],
        [dict(type='PackModalities')]])]
"""


@pytest.mark.parametrize('empty', [{0}, {1}])
def test_frames_whose_depth_says_nothing(tmp_path, monkeypatch, empty, recwarn):
    """Each frame is predicted from what it has, in any order, also with augmentation."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ('rgb', 'depth', 'labels'):
        Path(name).mkdir()
    for i in range(3):
        Image.fromarray(rng.integers(0, 255, (32, 48, 3), np.uint8)).save(f'rgb/{i}.png')
        depth = rng.integers(1000, 4000, (32, 48)).astype(np.uint16) * (i not in empty)
        Image.fromarray(depth).save(f'depth/{i}.png')
        Image.fromarray(rng.integers(0, 3, (32, 48), np.uint8)).save(f'labels/{i}.png')
    Path('frames.txt').write_text('0\n1\n2\n')
    config = f'mine{min(empty)}.py'  # logged values are shared by its name and the second
    Path(config).write_text(FOLDERS.format(root=ROOT))
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model)
    for weight in model.parameters():
        if weight.dim() == 4:  # so that not all pixels get the same class
            torch.nn.init.kaiming_normal_(weight)
    torch.save(dict(state_dict=model.state_dict(), meta={}), 'c.pth')

    def measure(name, *options):
        main([config, 'c.pth', '--work-dir', name, *options])
        return scores(tmp_path, name)

    alone = measure('alone', '--present', 'rgb')
    assert 'depth/mIoU' not in alone
    absent = measure('absent', '--treat-empty', 'absent')
    assert absent['mIoU'] != measure('use')['mIoU']
    only = f'test_dataloader.dataset.indices={sorted({0, 1, 2} - empty)}'
    assert absent['depth/mIoU'] == measure('full', '--cfg-options', only)['depth/mIoU']
    assert absent['rgb/mIoU'] != alone['rgb/mIoU']  # where depth is there, colour exchanges with it
    tta = measure('tta', '--tta', '--treat-empty', 'absent')
    assert tta['mIoU'] != measure('tta_use', '--tta')['mIoU']


def measure_norms(folder, *words, extra=''):
    """State before and after the statistics of norms are measured again."""
    short = '\ntrain_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False,'
    Path('short.py').write_text(CONFIG + f'{short} dataset=dict(length=4, size=(32, 48)))' + extra)
    script = str(ROOT / 'projects/paper/measure_norms.py')
    command = [sys.executable, script, 'short.py', 'a.pth', *words, '--out', 'b.pth']
    done = subprocess.run(command, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, after = (load(folder / name) for name in ('a.pth', 'b.pth'))
    assert after['meta'] == before['meta']  # names of the classes
    return before['state_dict'], after['state_dict']


def test_statistics_are_measured_again_from_some_modalities(folder):
    before, after = measure_norms(folder, '--present', 'rgb')
    for key in before:
        changed = (before[key] != after[key]).flatten()
        if key.endswith(('running_mean', 'running_var')) and key.startswith('backbone'):
            of_rgb, of_depth = changed.chunk(2)
            assert of_rgb.any()
            assert not of_depth.any()
        elif not key.endswith('num_batches_tracked') and 'running' not in key:
            assert not changed.any(), key


def test_statistics_for_subsets_are_measured_beside_those_of_all_modalities(folder):
    own = "\nmodel['modality_dropout'] = dict(p=0.5, own_norms=True)"
    words = ('--present', 'rgb', '--present', 'depth')
    before, after = measure_norms(folder, *words, extra=own)
    for key in before:
        if key.endswith(('running_mean', 'running_var')) and key.startswith('backbone'):
            of_both, of_one = after[key].chunk(2)
            assert torch.equal(of_both, before[key])
            for one, other in zip(of_one.chunk(2), before[key].chunk(2), strict=True):
                assert not torch.equal(one, other)
    alone = measure_norms(folder, '--present', 'depth', extra=own)[1]
    for key in after:
        if 'running' in key and key.startswith('backbone'):
            assert torch.equal(after[key].chunk(4)[3], alone[key].chunk(4)[3])


def test_depth_that_hha_is_made_of_is_no_input_unless_it_is_named():
    def kept(*names):
        stages = [dict(type='LoadModalities'), dict(type='DepthToHHA', keep=True)]
        data = dict(dataset=dict(type='NYUv2Dataset', pipeline=stages))
        model = dict(data_preprocessor=dict(modalities=['rgb', 'depth', 'hha']))
        cfg = Config(dict(model=model, test_dataloader=data))
        predict_from(cfg, names)
        made = cfg.test_dataloader.dataset
        return list(made.modalities), [stage.get('keep') for stage in made.pipeline[1:]]

    assert kept('hha') == (['depth'], [False])
    assert kept('depth', 'hha') == (['depth'], [True])
    assert kept('rgb') == (['rgb'], [])


def test_a_wrapper_expects_parameters_without_gradients(monkeypatch):
    pytest.importorskip('mmagic')
    runner = SimpleNamespace(register_hook=lambda hook: None)
    monkeypatch.setattr(launch.Runner, 'from_cfg', lambda cfg: runner)
    cfg = Config.fromfile(ROOT / 'configs/cen/taskonomy_shade-texture_to_rgb.py')
    cfg.model.modality_dropout, cfg.launcher = dict(p=0.3), 'none'
    launch.build_runner(cfg)
    assert cfg.model_wrapper_cfg.find_unused_parameters


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
