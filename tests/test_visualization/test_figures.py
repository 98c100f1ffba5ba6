"""The paper's figures and the page of a run, made of a training that a test runs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image

from mmcen.cli import report
from mmcen.visualization import sheet
from mmcen.visualization.figures import curves, scale_proportions
from mmcen.visualization.run_log import RunLog
from projects.paper import figures
from tests.converters import command
from tests.training import ENV, ROOT, train

CONFIG = f"""
_base_ = '{ROOT}/configs/cen/rooms_lwrefinenet_r18.py'
data = dict(size=(32, 48))
train_dataloader = dict(batch_size=4, dataset=dict(length=12, **data))
val_dataloader = dict(batch_size=4, dataset=dict(length=4, **data))
test_dataloader = val_dataloader
model = dict(
    backbone=dict(base_channels=8),
    decode_head=dict(in_channels=[8, 16, 32, 64], channels=8),
)
train_cfg = dict(max_epochs=3, val_interval=1)
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=-1), logger=dict(interval=1))
custom_hooks = [
    dict(type='SparsityHook', coefficient=0.5),
    dict(type='ExchangeMonitorHook', interval=1),
    dict(type='SheetHook', frames=2),
]
"""


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder with a config, the work directory of its training, and two frames with labels."""
    folder = tmp_path_factory.mktemp('run')
    (folder / 'small.py').write_text(CONFIG)
    train(folder, 'small.py', '--work-dir', 'run')
    from mmcen.datasets import SyntheticRooms

    rooms = SyntheticRooms(size=(48, 64), length=2, pipeline=[])
    for part in ('rgb', 'depth', 'label'):
        (folder / part).mkdir()
    for i in range(2):
        frame = rooms.prepare_data(i)
        Image.fromarray(frame['modalities']['rgb']).save(folder / f'rgb/{i}.png')
        np.save(folder / f'depth/{i}.npy', frame['modalities']['depth'])
        Image.fromarray(frame['gt_seg_map']).save(folder / f'label/{i}.png')
    return folder


@pytest.fixture
def draw(trained, monkeypatch, capsys):
    """figures.py in that folder: its status and what it printed."""
    monkeypatch.chdir(trained)

    def call(*args):
        monkeypatch.setattr(sys, 'argv', ['figures.py', *map(str, args)])
        status = figures.main()
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return call


MODEL = ('small.py', 'run/epoch_3.pth')
FRAME = ('--input', 'rgb=rgb/0.png', 'depth=depth/0.npy')
CHOICES = {
    'features': (*MODEL, *FRAME),
    'predictions': ('--model', 'last', *MODEL, '--model', 'first', 'small.py', 'run/epoch_1.pth',
                    '--input', 'rgb=rgb', 'depth=depth', '--label', 'label'),
    'proportions': MODEL,
    'scales': ('small.py', 'run'),
    'exchange': ('run',),
    'curves': ('--run', 'one', 'run', '--run', 'other', 'run',
               '--scalars', 'loss', 'exchanged/rgb', 'mIoU'),
}  # fmt: skip


@pytest.mark.parametrize('figure', CHOICES)
def test_figures(draw, figure):
    status, printed = draw(figure, *CHOICES[figure], '--out', f'out/{figure}.png')
    assert status == 0, printed
    picture = np.asarray(Image.open(f'out/{figure}.png').convert('RGB'))
    assert min(picture.shape[:2]) > 100
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20  # something was drawn
    assert f'written: out/{figure}.png' in printed


def test_a_name_has_one_colour_in_all_panels():
    line = ([0, 1], [0, 1])
    figure = curves({'loss': {'plain': line, 'cen': line}, 'exchanged': {'cen': line}})
    both, one = ({x.get_label(): x.get_color() for x in a.get_lines()} for a in figure.axes)
    assert both['cen'] == one['cen'] != both['plain']


def test_an_output_has_one_colour_and_place_in_all_panels(trained):
    log = RunLog(trained / 'run')
    assert log.streams == ['rgb', 'depth']
    colours = report.colours(log)
    for prefix, suffix in (('decode.', '.loss_ce'), ('', '/mIoU'), ('', '/mAcc'), ('alpha/', '')):
        pair = [colours[f'{prefix}{stream}{suffix}'] for stream in log.streams]
        assert pair == ['C0', 'C1']  # as in the figure of exchanged channels
    assert {colours[name] for name in ('mIoU', 'mAcc', 'decode.ensemble.loss_ce')} == {'black'}
    assert colours['loss'] == 'grey'
    panels = {
        **report.validation_groups(log),
        'scores': report.training_groups(log)['decision scores'],
    }
    assert list(panels['mIoU']) == ['rgb/mIoU', 'depth/mIoU', 'mIoU']
    assert list(panels['scores']) == ['alpha/rgb', 'alpha/depth']
    assert '<th>rgb</th><th>depth</th><th>ensemble</th>' in report.classes(log)


def test_labels_whose_classes_start_at_one(draw, trained):
    (trained / 'masks').mkdir()
    for path in (trained / 'label').iterdir():
        label = np.asarray(Image.open(path))
        Image.fromarray(label + 1).save(trained / 'masks' / path.name)  # 255 becomes 0
    one = ('predictions', '--model', 'last', *MODEL, '--input', 'rgb=rgb', 'depth=depth')
    pictures = []
    for i, args in enumerate([('label',), ('masks', '--reduce-zero-label'), ('masks',)]):
        assert draw(*one, '--label', *args, '--out', f'{i}.png')[0] == 0
        pictures.append(np.asarray(Image.open(f'{i}.png')))
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_categories_hold_every_channel(draw):
    _, printed = draw('features', *MODEL, *FRAME, '--layer', 'backbone.layer3.0.bn1')
    counts = [int(n) for n in re.findall(r': (\d+) channels', printed)]
    assert sum(counts) == 32
    assert printed.startswith('Loads') or 'backbone.layer3.0.bn1: rgb ~ 0' in printed


def test_proportions_are_white_where_all_are_small():
    gamma = np.array([[0.3, 0.0, 0.001], [0.1, 0.2, 0.002]])
    figure = scale_proportions({'a': gamma}, {'a': 0.01}, ['rgb', 'depth'])
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    np.testing.assert_allclose(heights, [0.75, 0, 0, 0.25, 1, 0], atol=1e-9)


def test_sensitivity(draw, trained):
    (trained / 'figure9.csv').write_text(
        'row,mIoU mean,mIoU deviation,exchanged % mean\n'
        'segmentation+exchange+lambda-x0.1,50,1,10\n'
        'segmentation+exchange+default,52,1,30\n'
        'segmentation+exchange+theta-x3,49,1,60\n'
        'segmentation+exchange+lambda-x10,51,1,45\n'
        'segmentation+zero+lambda-x10,,,\n'
    )
    assert draw('sensitivity', 'figure9.csv')[0] == 0
    points = figures.sweeps(trained / 'figure9.csv', 'mIoU')  # the default is in both panels
    assert {name: [p[:2] for p in ways['exchange']] for name, ways in points.items()} == {
        'segmentation, lambda': [(0.1, 50), (1, 52), (10, 51)],
        'segmentation, theta': [(1, 52), (3, 49)],
    }
    status, printed = draw('sensitivity', 'figure9.csv', '--metric', 'FID')
    assert status == 1
    assert 'has no figure of FID: run projects/paper/run.py run figure9 first' in printed


def test_cost(draw, trained):
    (trained / 'budget.csv').write_text(
        'row,mIoU mean,mIoU deviation,multiply_adds,deployed_multiply_adds\n'
        'concat,50,1,2e9,2e9\n'
        'cen,49,,2e9,1.5e9\n'
        'not run,,,,\n'
    )
    assert draw('cost', 'budget.csv', '--rows', 'cen', 'concat')[0] == 0
    figure = figures.draw_cost(
        SimpleNamespace(table=trained / 'budget.csv', metric='mIoU', rows=None)
    )
    drawn = {c.get_label(): c.lines[0].get_xydata().tolist() for c in figure.axes[0].containers}
    assert drawn == {'concat': [[2.0, 50.0]], 'cen': [[1.5, 49.0]]}
    status, printed = draw('cost', 'budget.csv', '--metric', 'FID')
    assert status == 1
    assert 'budget.csv has no figure of FID with multiply-adds: give a .csv table of' in printed


def test_robust(draw, trained):
    head = 'group,case,mIoU,rgb/mIoU\nsubsets,rgb + depth,'
    (trained / 'a.csv').write_text(head + '50,49\nsubsets,rgb,40,\nsummary,worst case,40,\n')
    (trained / 'b.csv').write_text(head + '60,59\nsubsets,rgb,30,\nsummary,worst case,30,\n')
    (trained / 'c.csv').write_text(head + '60,59\n')
    status, printed = draw('robust', '--model', 'A', 'a.csv', '--model', 'B', 'b.csv')
    assert status == 0
    assert '| case | A | B |\n| --- | ---: | ---: |\n' in printed
    assert '| subsets: rgb | 40.00 | 30.00 |' in printed
    status, printed = draw('robust', '--model', 'A', 'a.csv', '--model', 'C', 'c.csv')
    assert status == 1
    assert 'c.csv has not the same cases as the first table, or no mIoU: give' in printed


@pytest.mark.parametrize(
    'text',
    [
        'a,b\n1,2\n',
        'row,mIoU mean,mIoU deviation\ncen,50,1\n',
        'row,mIoU mean\nsegmentation+exchange+lambda-x10,51\n',
        'row,mIoU mean,mIoU deviation\nsegmentation+exchange+lambda-x10,much,1\n',
    ],
)
def test_another_table_is_no_sweep(draw, trained, text):
    (trained / 'other.csv').write_text(text)
    assert draw('sensitivity', 'other.csv') == (
        1,
        'error: other.csv is not the figure9.csv that projects/paper/run.py run figure9 writes: '
        'give that\n',
    )


@pytest.fixture
def single(trained):
    """Models of colour alone and of depth alone, for figures.py."""
    models = []
    for name in ('rgb', 'depth'):
        config = trained / f'{name}.py'
        cfg = Config.fromfile(trained / 'small.py')
        preprocessor = cfg.model.data_preprocessor
        preprocessor.modalities = [m for m in preprocessor.modalities if m.name == name]
        cfg.dump(config)
        torch.save(
            dict(state_dict=MODELS.build(cfg.model).state_dict()), config.with_suffix('.pth')
        )
        models += ['--model', name, config.name, f'{name}.pth']
    return models


@pytest.fixture
def titles(monkeypatch):
    """Of the figures that are drawn, by row."""
    drawn = []
    whole = sheet.sheet

    def keep(rows, *legend):
        drawn.append([list(row) for row in rows])
        return whole(rows, *legend)

    monkeypatch.setattr(sheet, 'sheet', keep)
    return drawn


def test_a_model_beside_itself_without_a_modality(draw, titles):
    words = ('--model', 'cen', *MODEL, '--alone', '--input', 'rgb=rgb', 'depth=depth')
    status, printed = draw('predictions', *words)
    assert status == 0, printed
    models = ('cen', 'cen, rgb alone', 'cen, depth alone')
    assert titles[0][0] == ['rgb', 'depth', *(f'{name}\nensemble' for name in models)]


@pytest.mark.parametrize(
    'given, rows', [(('rgb=rgb/0.png', 'depth=depth/1.npy'), 1), (('depth=depth', 'rgb=rgb'), 2)]
)
def test_models_of_one_modality_side_by_side(draw, single, titles, given, rows):
    """Each takes its own, of the same frame: as in Figs. 4 to 6."""
    status, printed = draw('predictions', *single, '--input', *given)
    assert status == 0, printed
    assert titles == [[['rgb', 'depth', 'rgb\nensemble', 'depth\nensemble']] * rows]
    assert printed.count('loading ') == 2


@pytest.mark.parametrize(
    'args, message',
    [
        (
            ('predictions', *CHOICES['predictions'][:8], '--input', 'rgb=rgb', 'ir=depth'),
            "modality 'ir' is none of the model: the model takes rgb=... depth=...",
        ),
        (
            ('predictions', *CHOICES['predictions'][:8], *FRAME, 'ir=depth/0.npy'),
            "modality 'ir' is none of the model: the model takes rgb=... depth=...",
        ),
        (
            ('predictions', '--model', 'a', *MODEL, '--model', 'a', *MODEL, *FRAME),
            '2 models have 1 names: give each its own',
        ),
        (
            ('features', *MODEL, '--input', 'rgb=rgb', 'ir=depth'),
            "modality 'ir' is none of the model: the model takes rgb=... depth=...",
        ),
        (
            ('predictions', '--model', 'a', 'small.py', 'other.pth', *FRAME),
            'the checkpoint is of another model (',
        ),
        (('features', 'small.py', 'other.pth', *FRAME), 'the checkpoint is of another model ('),
        (('proportions', *MODEL, '--layers', 'x'), 'no exchanging norm is called x: there are ['),
        (('scales', 'small.py', 'rgb'), 'rgb has 0 checkpoints epoch_<n>.pth, it takes two'),
        (('scales', 'small.py', 'run', '--stream', 'ir'), 'no stream is called ir: there are ['),
        (('scales', 'small.py', 'mixed'), 'mixed/epoch_1.pth has no backbone.'),
        (('exchange', 'no'), 'there is no directory no'),
        (
            ('curves', '--run', 'a', 'run', '--scalars', 'mIuO'),
            'no run has logged mIuO: there are aAcc, alpha/depth, ',
        ),
        (
            ('curves', '--run', 'a', 'run', '--run', 'a', 'run'),
            '2 runs have 1 names: give each its own',
        ),
        (('exchange', 'rgb'), 'rgb has no log of a training, */vis_data/scalars.json'),
        (('features', 'small.py', 'no.pth', *FRAME), 'no.pth does not exist'),
    ],
)
def test_what_is_wrong_takes_one_line(draw, args, message):
    torch.save(dict(state_dict={'other.weight': torch.zeros(1)}), 'other.pth')
    Path('mixed').mkdir(exist_ok=True)
    shutil.copy('other.pth', 'mixed/epoch_1.pth')
    shutil.copy(MODEL[1], 'mixed/epoch_2.pth')
    status, printed = draw(*args)
    assert status == 1
    assert f'error: {message}' in printed


def test_the_log_is_read_as_it_was_written(trained):
    log = RunLog(trained / 'run')
    steps, losses = log.training['loss']
    assert steps.tolist() == list(range(1, 10))
    assert np.isfinite(losses).all()
    assert set(log.exchange) == {'rgb', 'depth'}
    assert len(log.exchange['rgb']) == 16
    epochs, scores = log.validation['mIoU']
    assert epochs.tolist() == [1, 2, 3]
    of_classes = [values[0] for values in log.classes['ensemble'].values()]
    assert scores[-1] == pytest.approx(np.nanmean(of_classes), abs=0.02)
    assert set(log.classes) == {'ensemble', 'rgb', 'depth'}
    # shares as the last checkpoint's scales say
    state = torch.load(trained / 'run/epoch_3.pth', weights_only=True)['state_dict']
    gamma = state['backbone.layer2.0.bn1.norm.weight'].view(2, -1).abs()
    half = gamma.shape[1] // 2
    share = (gamma[0, :half] < 2e-2).float().mean() / 2
    assert log.exchange['rgb']['backbone.layer2.0.bn1'][1][-1] == pytest.approx(float(share))


def test_half_a_line_of_a_killed_training(trained, tmp_path):
    shutil.copytree(trained / 'run', tmp_path / 'run')
    (path,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    path.write_text(path.read_text()[:-20])
    assert len(RunLog(tmp_path / 'run').records) == len(RunLog(trained / 'run').records) - 1


TABLE = """2026/01/01 - mmengine - INFO - per class results:
+-------+-------+-------+
| Class |  IoU  |  Acc  |
+-------+-------+-------+
| wall  | {:.2f} | 50.00 |
| floor |  nan  |  nan  |
+-------+-------+-------+
"""
STREAM = "2026/01/01 - mmengine - INFO - stream 'rgb':\n"
END = '2026/01/01 - mmengine - INFO - Epoch({}) [4/4]    mIoU: 10.0000\n'


def validated(value, kind='val'):
    """What a validation or a test of an ensemble and a stream logs."""
    return TABLE.format(value) + STREAM + TABLE.format(value + 1) + END.format(kind)


LATER = {
    'resumed': ['2026/01/01 - mmengine - INFO - Epoch(train)  [2][1/9]    loss: 1.0\n'],
    'crashed at once': [''],
    'tested': [validated(30, 'test')],
    'killed': [validated(30)[:cut] for cut in range(len(validated(30)) - len(END))],
}


@pytest.mark.parametrize('later', LATER)
def test_scores_by_class_are_of_the_last_whole_validation(tmp_path, later):
    for name in '12':
        (tmp_path / name / 'vis_data').mkdir(parents=True)
    (tmp_path / '1/vis_data/scalars.json').write_text('{"loss": 1.0, "iter": 1, "step": 1}\n')
    (tmp_path / '1/1.log').write_text(validated(10) + validated(20))
    for text in LATER[later]:
        (tmp_path / '2/2.log').write_text(text)
        log = RunLog(tmp_path)
        walls = {name: rows['wall'] for name, rows in log.classes.items()}
        assert walls == {'ensemble': [20, 50], 'rgb': [21, 50]}
        assert '<td class=best>21.00</td>' in report.classes(log)


@pytest.fixture
def page(trained, capsys):
    assert command('report', str(trained / 'run')) == 0
    assert 'written: ' in capsys.readouterr().out
    return trained / 'run' / 'report.html'


def test_the_page_needs_no_other_file(page):
    text = page.read_text()
    assert not re.search(r'(src|href)="(?!data:)', text)
    for heading in ('scores', 'curves', 'exchange', 'classes', 'pictures', 'configuration'):
        assert f'id="{heading}"' in text


def test_the_page_in_a_browser(page, tmp_path):
    """Chromium lays it out: every picture is decoded, no text is wider than the window."""
    browser = shutil.which('chromium') or shutil.which('google-chrome')
    if browser is None:
        pytest.skip('no Chromium')
    probe = """<script>addEventListener('load', () => {
        const images = [...document.images];
        document.body.dataset.images = images.length;
        document.body.dataset.drawn = images.filter(i => i.naturalWidth > 100).length;
        document.body.dataset.rows = document.querySelectorAll('#classes + div tbody tr').length;
        document.body.dataset.wide = document.documentElement.scrollWidth > innerWidth;
    })</script></body>"""
    probed = tmp_path / 'probed.html'
    probed.write_text(page.read_text().replace('</body>', probe))
    run = subprocess.run(
        [browser, '--headless', '--no-sandbox', '--disable-gpu', '--no-first-run',
         '--disable-background-networking', '--disable-component-update', '--disable-sync',
         f'--user-data-dir={tmp_path / "profile"}', '--window-size=1200,800',
         '--virtual-time-budget=5000', '--dump-dom', probed.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    body = re.search(r'<body [^>]*>', run.stdout)
    assert body, run.stderr[-2000:]
    found = dict(re.findall(r'data-(\w+)="(\w+)"', body[0]))
    assert int(found['images']) == int(found['drawn']) >= 5
    assert found['rows'] == '10'
    assert found['wide'] == 'false'


def test_a_broken_stack_takes_one_line(tmp_path):
    (tmp_path / 'mmengine').mkdir()
    (tmp_path / 'mmengine/__init__.py').touch()
    (tmp_path / 'mmengine/version.py').write_text("__version__ = '0.9.0'")
    run = subprocess.run(
        [sys.executable, '-m', 'mmcen', 'report', tmp_path],
        env={**ENV, 'PYTHONPATH': f'{tmp_path}:{ROOT}'},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert 'error: mmcen needs mmengine >= 0.10, found 0.9.0: ' in run.stderr
    assert 'Traceback' not in run.stderr


def test_no_training(capsys, tmp_path):
    assert command('report', str(tmp_path)) == 1
    assert 'error: ' in capsys.readouterr().err
    assert not (tmp_path / 'report.html').exists()
    assert Path(tmp_path).is_dir()
