"""projects/paper/run.py: every row is listed and builds; runs, failures, kills and tables."""

import csv
import json
import os
import re
import signal
import statistics
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from rich.console import Console

from mmcen.core import exchange_norms
from projects.paper import run as paper
from projects.paper import running
from projects.paper.duration import duration
from projects.paper.experiments import OWN, SEGMENTATION, TRANSLATION, config_of, load
from projects.paper.report import Line, differences, markdown, orders
from projects.paper.rivals.fusion import Fusion
from projects.paper.rows import TABLES
from projects.paper.store import Folder
from tests.command import Command, run_python
from tests.optional import need_mmagic

ROOT = Path(__file__).parents[2]
ROWS = [(name, key) for name, table in TABLES.items() for key in table.rows]
TINY = (
    '--epochs', '2', '--cfg-options', 'train_dataloader.dataset.length=16',
    'val_dataloader.dataset.length=8',
)  # fmt: skip


def build(run, dataset):
    """The model of a run, without numbers, after checks of what all have."""
    with torch.device('meta'):
        model = MODELS.build(load(run, dataset).model)
    assert sum(p.numel() for p in model.parameters()) > 1e5
    fusions = {type(m).__name__ for m in model.modules() if isinstance(m, Fusion)}
    assert fusions == ({run.fusion.type} if run.fusion else set())
    return model


@pytest.mark.parametrize(('table', 'key'), ROWS)
def test_every_row_is_read_or_says_why_not(table, key):
    row = TABLES[table].rows[key]
    assert row.runs or row.why
    for dataset in row.datasets():
        for run in row.runs_on(dataset).values():
            assert load(run, dataset).model.type in MODELS


def is_short(table, key, run, dataset):
    """Whether ``make test`` builds the model: those of the paper's data, and one of each fusion."""
    on_timm = dataset == 'nyuv2-efflite0' and key.endswith('-all')
    return on_timm or (dataset == run.home and (table, key) not in TRANSLATED)


@pytest.mark.parametrize(
    'short', [True, pytest.param(False, marks=pytest.mark.long)], ids=['paper', 'other']
)
@pytest.mark.parametrize(('table', 'key'), ROWS)
def test_every_row_builds(table, key, short):
    row = TABLES[table].rows[key]
    if any(run.kind == TRANSLATION for run in row.runs.values()):
        need_mmagic()
    for dataset in row.datasets():
        for run in row.runs_on(dataset).values():
            if is_short(table, key, run, dataset) == short:
                build(run, dataset)


# Millions of the generator in Tables 4 to 9, by case and method: ours by counting. The paper has
# 108.7 for two networks of 54.4, and 163.1 and 124.3 in Table 8.
MILLIONS = {
    r'[a-z-]*(_to_rgb)?|[a-z-]*_to_[a-z]*\+cen': 54.4,
    r'.*\+(cycle)': 54.5,
    r'.*\+(decx3|random)': 124.2,
    r'.*\+independent': 163.3,
    r'[a-z-]*_to_[a-z]*-[a-z]*\+(cen|shared-encoder|enc|dec|xtc|cen-xtc)': 89.3,
    r'[a-z]*_to_[a-z]*-[a-z]*\+indiv': 108.8,
    r'[a-z]*-[a-z]*_to_[a-z]*-[a-z]*\+indiv': 108.9,
    r'[a-z-]*_to_[a-z]*-[a-z]*-[a-z]*\+cen': 124.2,
    r'[a-z-]*_to_[a-z]*-[a-z]*-[a-z]*\+indiv': 163.3,
    r'[a-z-]*_to_[a-z]*-[a-z]*-[a-z]*\+(adashare|tg|cen-tg)': 143.7,
}
NO_DECODER = ('indiv', 'shared-encoder', 'enc', 'adashare', 'tg', 'xtc')
TRANSLATED = [
    (table, key)
    for table, key in ROWS
    if table in [f'table{i}' for i in range(4, 10)] and not TABLES[table].rows[key].runs[''].fusion
]


@pytest.mark.parametrize(('table', 'key'), TRANSLATED)
def test_translated_rows(table, key):
    """Tasks are in the data, sizes are the paper's, and what exchanges is what the name says."""
    need_mmagic()
    run = TABLES[table].rows[key].runs['']
    cfg, model = config_of(run), build(run, run.home)
    assert set(model.names) <= set(cfg.train_dataloader.dataset.modalities)
    assert list(cfg.val_evaluator.metrics) == list(model.plan.tasks)
    (millions,) = (m for pattern, m in MILLIONS.items() if re.fullmatch(pattern, key))
    count = sum(p.numel() for p in model.network.parameters())
    if key.endswith('adashare'):
        count += sum(p.numel() for p in model.policy.parameters())
    assert round(count / 1e6, 1) == millions
    for discriminator in model.discriminators.by_task.values():
        assert round(sum(p.numel() for p in discriminator.parameters()) / 1e6, 2) == 2.77
    method = key.partition('+')[2]
    wanted = set()
    if len(model.plan.tasks) > 1 and table != 'table6' and method not in NO_DECODER:
        wanted.add('tasks')
    if model.plan.grid.modalities > 1 and method not in ('indiv', 'dec'):
        wanted.add('modalities')
    assert {norm.axis for _, norm in exchange_norms(model)} == wanted


def test_a_row_is_dumped_and_read_again(monkeypatch, capsys, tmp_path):
    need_mmagic()
    row = 'depth-normal-shade+random'
    assert call(monkeypatch, 'dump', 'table6', row, '--out', str(tmp_path)) == 0
    path = tmp_path / f'table6_{row}.py'
    assert f'written: {path}' in capsys.readouterr().out
    cfg = Config.fromfile(path)
    assert cfg.model.train_cfg.flow == 'random'
    assert cfg.train_dataloader.dataset.type == 'TaskonomyDataset'
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert list(model.plan.tasks) == ['reshading', 'normal', 'depth_euclidean']
    words = ('dump', 'table2', 'concat-late', '--dataset', 'synthetic', '--out', str(tmp_path))
    assert call(monkeypatch, *words) == 0
    for part, merge in (('', False), ('_common', True)):
        cfg = Config.fromfile(tmp_path / f'table2_concat-late{part}.py')
        assert cfg.model.fusion['merge'] == merge
    assert call(monkeypatch, 'dump', 'table14', 'mst', '--out', str(tmp_path)) == 1
    assert 'table14 mst is not run here: ' in capsys.readouterr().err


def test_published_figures():
    published = {name: table.rows for name, table in TABLES.items() if table.page}
    names = [f'table{i}' for i in range(1, 14)]
    assert list(published) == [*names, 'figure9', 'table14']
    counts = [len(published[name]) for name in [*names, 'table14']]
    assert counts == [13, 15, 18, 85, 7, 20, 25, 15, 16, 12, 8, 10, 2, 12]
    cen = {'rgb/mIoU': 49.7, 'depth/mIoU': 45.1, 'mIoU': 51.1}
    assert published['table1']['cen'].published == cen
    assert published['table2']['cen'].published['mIoU'] == 51.1
    assert published['table3']['cen-pspnet-r152'].published['nyuv2/mIoU'] == 52.5
    both = ('shade-texture_to_rgb+cen', 'depth-normal-texture-shade')
    assert published['table4'][both[0]].published['rgb/FID'] == 62.63
    assert published['table5'][both[1]].published['rgb/FID'] == 57.19
    for rows in published.values():
        for row in rows.values():
            for column, value in row.published.items():
                assert value is None or 0 < value < (150 if 'FID' in column else 100)
                kid = row.published.get(column[:-3] + 'KID')
                if column.endswith('/FID') and value is not None and kid is not None:
                    assert 5 < 10 * kid < value
                if column.endswith('/MAE') and row.published.get(column[:-3] + 'RMSE'):
                    assert value < row.published[column[:-3] + 'RMSE']


def test_table_3_is_trained_on_both_data_sets():
    """Each column on its own data: classes, epochs and network are those of the config there."""
    rows = TABLES['table3'].rows
    for dataset, classes, epochs in (('nyuv2', 40, (300, 450)), ('sunrgbd', 37, (60, 60))):
        found = {}
        for key, row in rows.items():
            for part, run in row.runs_on(dataset).items():
                found[key] = cfg = load(run, dataset)
                assert part == dataset
                assert row.published[f'{part}/mIoU'] is not None
                assert cfg.model.decode_head.num_classes == classes
                deep = cfg.model.backbone.depth == 152
                assert cfg.train_cfg.max_epochs == epochs[deep]
        assert list(found) == [
            'refinenet-r101-rgb', 'ssma-r101', 'cbn-r101', 'cen-refinenet-r101-single',
            'cen-refinenet-r152-single', 'cen-pspnet-r152',
        ]  # fmt: skip
        assert found['cen-pspnet-r152'].model.decode_head.type == 'PSPHead'
    assert not TABLES['table1'].rows['cen'].runs_on('sunrgbd')
    with pytest.raises(ValueError, match='sunrgbd does not support the segmentation of nyud_'):
        load(TABLES['table1'].rows['cen'].runs[''], 'sunrgbd')


@pytest.mark.parametrize('fusion', ['concat', 'selfatt'])
def test_rivals_take_the_settings_found_for_their_fusion(fusion):
    rows = TABLES['table2'].rows
    cfg = load(rows[f'{fusion}-all'].runs[''], 'nyuv2-efflite0')
    own = Config.fromfile(OWN / f'efflite0_{fusion}.py')
    own.model.fusion['merge'] = False  # addict has a method of this name
    assert cfg.model == own.model
    assert cfg.optim_wrapper == own.optim_wrapper
    early = load(rows[f'{fusion}-early'].runs['common'], 'nyuv2-efflite0').model.fusion
    assert early == {**own.model.fusion, 'after': ['timm_model.blocks.2'], 'merge': True}


def test_sweeps_of_figure_9():
    need_mmagic()
    rows = TABLES['figure9'].rows
    assert len(rows) == 36
    for kind in ('segmentation', 'translation'):
        plain, lower, higher = (
            load(rows[f'{kind}+zero+{sweep}'].runs[''], 'synthetic')
            for sweep in ('default', 'theta-x0.1', 'lambda-x10')
        )
        assert (plain.model if kind == 'segmentation' else plain.model.network)['replace'] == 'zero'
        norms = [
            cfg.model.exchange if kind == 'segmentation' else cfg.model.network.norm_cfg
            for cfg in (plain, lower, higher)
        ]
        assert norms[1].threshold == pytest.approx(0.1 * norms[0].threshold)
        assert norms[2] == norms[0]
        coefficients = [
            hook.coefficient
            for cfg in (plain, lower, higher)
            for hook in cfg.custom_hooks
            if hook.type == 'SparsityHook'
        ]
        assert coefficients == pytest.approx([coefficients[0]] * 2 + [10 * coefficients[0]])


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, 'argv', ['paper.py', *words])
    return paper.main()


def test_list_and_show(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv('COLUMNS', '200')
    assert call(monkeypatch, 'list') == 0
    out = capsys.readouterr().out
    assert 'versions of CEN' in out
    assert '1 of 12' in out  # saliency
    assert call(monkeypatch, 'show', 'table3', '--work-dir', str(tmp_path)) == 0
    out = capsys.readouterr().out
    assert 'needs --dataset nyuv2, sunrgbd, not synthetic' in out
    assert '(52.5)' in out
    assert 'other data than synthetic: compare the order of the rows only' in out
    assert call(monkeypatch, 'show', 'table1', '--rows', 'cen', '--work-dir', str(tmp_path)) == 0
    out = capsys.readouterr().out
    assert '1 not run' in out
    assert 'a row: python projects/paper/run.py run table1 --rows cen --dataset synthetic' in out
    # too wide for this terminal: a figure a line, none cut
    monkeypatch.setenv('COLUMNS', '100')
    words = ('show', 'table6', '--rows', 'rgb-depth-normal+cycle', '--work-dir', str(tmp_path))
    assert call(monkeypatch, *words) == 0
    lines = [line.strip('│ ').split() for line in capsys.readouterr().out.splitlines()]
    assert ['depth_euclidean/RMSE', '│', '(4.45)'] in lines


@pytest.mark.parametrize(
    ('words', 'text'),
    [
        (('show', 'table99'), 'no table table99: there are table1, table2'),
        (('run', 'table1', '--rows', 'best'), 'table1 has no row best: it has unshared, shared'),
        (('run', 'table1', '--dataset', 'imagenet'), "invalid choice: 'imagenet'"),
        (('run', 'table1', '--epochs', '1'), '--epochs is at least 2: the first of some'),
        (('run', 'table1', '--jobs', '0'), '--jobs is at least 1'),
        (('run', 'table2', '--without', 'best'), 'table2 has no part best: it has common'),
        (('run', 'table1', '--without', 'common'), 'table1 has no part common: it has none'),
    ],
)
def test_wrong_names(monkeypatch, capsys, words, text):
    with pytest.raises(SystemExit, match='2'):
        call(monkeypatch, *words)
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ('words', 'text'),
    [
        (('table2', '--rows', 'cen', '--dataset', 'taskonomy'), 'nothing to train: choose other'),
        (
            ('table2', '--rows', 'cen', '--cfg-options', 'custom_hooks.9.coefficient=1'),
            '--cfg-options do not fit nyud_refinenet_r101.py: Index 9 exceeds the length of list',
        ),
    ],
)
def test_what_cannot_be_trained(monkeypatch, capsys, tmp_path, words, text):
    assert call(monkeypatch, 'run', *words, '--work-dir', str(tmp_path)) == 1
    assert text in capsys.readouterr().err


def command(folder, *words):
    return [ROOT / 'projects' / 'paper' / 'run.py', *words, '--work-dir', str(folder)]


def read(folder, name):
    with (folder / 'synthetic' / f'{name}.csv').open() as file:
        return {row['row']: row for row in csv.DictReader(file)}


@pytest.mark.long
def test_rows_are_trained_and_a_failure_stops_nobody(tmp_path):
    rows = ('--rows', 'fixed', 'cen', '--seeds', '0', '1', '--jobs', '2')
    # a share that the row 'fixed' alone looks at
    wrong = (*TINY, 'model.exchange.share=2')
    first = run_python(*command(tmp_path, 'run', 'table1', *rows, *wrong))
    assert first.returncode == 1
    assert 'share must be within 0..1, got 2' in first.stdout
    assert 'run the same command again to retry what failed' in first.stdout
    table = read(tmp_path, 'table1')
    assert set(table) == {'fixed', 'cen'}
    assert table['fixed']['mIoU mean'] == ''
    assert '2 failed' in table['fixed']['note']
    assert table['fixed']['mIoU published'] == '47.2'
    results = [json.loads(f.read_text()) for f in tmp_path.rglob('*_cen_*/result.json')]
    for config in tmp_path.rglob('*_cen_*/config.py'):  # its checkpoint serves the config it is of
        specs = Config.fromfile(config).model.data_preprocessor.modalities
        assert [spec.name for spec in specs] == ['rgb', 'depth']
    assert len(results) == 2
    scores = [result['metrics']['mIoU'] for result in results]
    assert float(table['cen']['mIoU mean']) == pytest.approx(statistics.fmean(scores))
    assert float(table['cen']['mIoU deviation']) == pytest.approx(statistics.stdev(scores))
    assert scores[0] != scores[1]
    assert table['cen']['seeds'] == '2'
    assert float(table['cen']['parameters']) == results[0]['parameters'] > 1e6
    # at a quarter of the frame's size at most, every weight of a convolution is used several times
    assert results[0]['multiply_adds'] > 3 * results[0]['parameters']
    assert 0 < results[0]['deployed_multiply_adds'] <= results[0]['multiply_adds']
    assert '--rows cen --dataset synthetic --epochs 2 --seeds 0 1' in table['cen']['command']
    text = (tmp_path / 'synthetic' / 'table1.md').read_text()
    mean, deviation = statistics.fmean(scores), statistics.stdev(scores)
    assert f'| {mean:.2f} ± {deviation:.2f} (51.1) |' in text
    assert r'\begin{tabular}' in (tmp_path / 'synthetic' / 'table1.tex').read_text()
    # the same training under the name of another table, and nothing is done twice
    stamps = {f: f.stat().st_mtime_ns for f in tmp_path.rglob('result.json')}
    again = ('run', 'table2', '--rows', 'cen', '--seeds', '0', '1', *wrong, '--metrics', 'mAcc')
    assert run_python(*command(tmp_path, *again)).returncode == 0
    assert stamps == {f: f.stat().st_mtime_ns for f in tmp_path.rglob('result.json')}
    found = read(tmp_path, 'table2')['cen']
    assert float(found['mIoU mean']) == pytest.approx(mean)
    accuracies = [result['metrics']['mAcc'] for result in results]
    assert float(found['mAcc mean']) == pytest.approx(statistics.fmean(accuracies))
    assert 'mAcc mean' not in table['cen']
    assert found['command'].endswith('--metrics mAcc')
    # a command for another row keeps the figures that are there
    (tmp_path / 'synthetic' / 'table1.csv').unlink()
    words = ('run', 'table1', '--rows', 'fixed', '--seeds', '0', '1', *wrong)
    assert run_python(*command(tmp_path, *words)).returncode == 1
    assert read(tmp_path, 'table1')['cen'] == table['cen']
    assert set(read(tmp_path, 'table1')) == {'fixed', 'cen'}


@pytest.mark.long
def test_the_reason_of_a_failure_is_printed_as_it_is(tmp_path):
    words = ('run', 'table1', '--rows', 'cen', *TINY, 'model.exchange.selection=a[red]')
    done = run_python(*command(tmp_path, *words))
    assert done.returncode == 1
    assert "got 'a[red]'" in done.stdout


@pytest.mark.parametrize(
    ('ends', 'text'),
    [
        ("raise RuntimeError('no [/data] in a[red]')", 'RuntimeError: no [/data] in a[red]'),
        (
            'import os, signal; os.kill(os.getpid(), signal.SIGKILL)',
            'killed, most likely as memory',
        ),
    ],
)
def test_how_a_run_ends_is_told(monkeypatch, capsys, tmp_path, ends, text):
    (tmp_path / 'run.py').write_text(ends)
    monkeypatch.setattr(running, 'SCRIPT', tmp_path / 'run.py')
    words = ('run', 'table1', '--rows', 'fixed', 'cen', '--work-dir', str(tmp_path))
    assert call(monkeypatch, *words) == 1
    assert capsys.readouterr().out.count(text) == 4  # of two runs: when it ends, and at the end


@pytest.mark.long
def test_killed_and_taken_up_again(tmp_path, monkeypatch, capsys):
    words = ('run', 'table1', '--rows', 'cen', *TINY, 'train_dataloader.dataset.length=48')
    with Command(*command(tmp_path, *words)) as process:
        while not list(tmp_path.rglob('last_checkpoint')):
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGSTOP)  # at work, however slowly the second one starts
        second = run_python(*command(tmp_path, *words))
        os.killpg(process.pid, signal.SIGKILL)
    assert 'another projects/paper/run.py works in' in second.stderr
    monkeypatch.setenv('COLUMNS', '200')
    assert call(monkeypatch, *command(tmp_path, 'show', *words[1:])[1:]) == 0
    assert '1 half-finished' in capsys.readouterr().out
    assert run_python(*command(tmp_path, *words)).returncode == 0
    (log,) = tmp_path.rglob('log.txt')
    assert 'resumed epoch: 1' in log.read_text() or 'resumed epoch: 2' in log.read_text()
    assert read(tmp_path, 'table1')['cen']['mIoU mean']


@pytest.mark.long
def test_a_part_of_a_row_is_left_out(tmp_path):
    words = ('run', 'table2', '--rows', 'concat-late', *TINY, '--without', 'common')
    assert run_python(*command(tmp_path, *words)).returncode == 0
    (trained,) = tmp_path.rglob('result.json')
    row = read(tmp_path, 'table2')['concat-late']
    assert float(row['mIoU mean']) == json.loads(trained.read_text())['metrics']['mIoU']
    assert row['common/mIoU mean'] == ''
    assert row['note'] == '1 not run, 1 finished'
    assert row['command'].endswith('--without common')


@pytest.mark.long
def test_a_translated_row_shows_what_can_be_measured(tmp_path):
    need_mmagic()
    words = ('run', 'table5', '--rows', 'depth-normal', *TINY, 'model.network.base_channels=8')
    assert run_python(*command(tmp_path, *words)).returncode == 0
    row = read(tmp_path, 'table5')['depth-normal']
    assert float(row['rgb/RMSE mean']) > float(row['rgb/MAE mean']) > 0
    assert row['rgb/FID mean'] == ''  # no weights were named
    assert float(row['rgb/FID published']) == 84.33


def test_a_table_says_where_nothing_was_exchanged():
    lines = [Line('concat', {}), Line('idle', {}, exchanged=[0.0, 0.0]), Line('cen', {})]
    lines[2].exchanged = [0.0, 0.2]
    found = markdown('T', lines, '').splitlines()
    assert found[2].startswith('**Nothing was exchanged in idle**: ')
    assert 'Nothing' not in markdown('T', [lines[0], lines[2]], '')


def test_a_table_counts_the_pairs_of_rows_in_the_order_of_the_paper():
    figures = {
        'a': (50.0, [48.0, 50.0]),
        'b': (45.0, [51.0]),
        'c': (40.0, [30.0]),
        'd': (50.0, [9.0]),
    }
    lines = [
        Line(name, {'mIoU': published, 'rgb/mIoU': None}, {'mIoU': dict(enumerate(measured))})
        for name, (published, measured) in figures.items()
    ]
    # of the six pairs, a and d are equal in the paper; only a > c and b > c are in its order
    assert orders([*lines, Line('not run', {'mIoU': 60.0})]) == [
        'Order of rows by mIoU: 2 of 5 pairs as in the paper.'
    ]
    text = markdown('T', lines, 'In brackets: published.')
    assert '| row | mIoU | note |' in text  # no column for what has no figure
    assert '- Order of rows by mIoU: 2 of 5 pairs as in the paper.' in text
    assert 'over seeds. In brackets: published.' in text


def test_figures_with_their_deviation_are_never_cut():
    of_seeds = {f'{name}/mIoU': {0: 50.0, 1: 51.0} for name in 'abcdef'}
    grid = paper.wide([Line('cen', {}, measured=of_seeds)], 'T')
    assert Console(width=500).measure(grid).minimum > 6 * len('50.50 ± 0.71')


def test_rows_are_compared_seed_by_seed():
    lines = [
        Line('concat', {}, measured={'mIoU': {0: 20.0, 1: 21.0, 2: 25.0}}),
        Line('cen', {}, measured={'mIoU': {0: 21.0, 2: 28.0, 3: 1.0}}),  # by pairs 1 and 3
        Line('early', {}, measured={'mIoU': {1: 20.5}, 'MAE': {1: 1.0}}),
    ]
    assert differences(lines, 'concat') == [
        ['minus concat', 'mIoU', 'seeds'],
        ['cen', '+2.00 ± 1.00', '2'],
        ['early', '-0.50', '1'],
    ]
    text = markdown('T', lines, '', 'concat')
    assert (
        '| minus concat | mIoU | seeds |\n| --- | --- | --- |\n| cen | +2.00 ± 1.00 | 2 |' in text
    )
    assert differences(lines, 'not run') == []
    assert 'standard error' not in markdown('T', lines, '')


@pytest.mark.parametrize(
    ('dataset', 'text'),
    [
        ('nyuv2', 'In brackets: published, on NYUv2.'),
        ('nyuv2-cpu', 'on NYUv2 with larger networks: compare the order of the rows.'),
        ('synthetic', 'on NYUv2, other data than synthetic: compare the order of the rows only.'),
    ],
)
def test_a_table_says_of_what_data_the_published_figures_are(dataset, text):
    assert TABLES['table1'].brackets(dataset).endswith(text)


def test_the_time_of_trainings_is_estimated_from_finished_ones(tmp_path):
    cfg = Config(dict(train_cfg=dict(max_epochs=6)))
    folders = [Folder(tmp_path / str(i), cfg) for i in range(5)]
    known, unknown = (
        [(folder, (dataset, SEGMENTATION)) for folder in folders]
        for dataset in ('synthetic', 'sunrgbd')
    )
    # 66 s each were measured, see docs/results/index.md: a minute of a core
    assert duration(known, 1) == (
        '5 of 5 trainings to run, about 6 min, as on two cores of an AMD EPYC.'
    )
    assert 'their time was never measured' in duration(unknown, 1)
    (tmp_path / '0').mkdir()
    (tmp_path / '0/result.json').write_text('{"seconds": 3600}')
    assert duration(unknown, 2) == (
        '4 of 5 trainings to run, about 2.0 h, as those that are finished.'
    )
    assert duration(known[:1], 1) == '0 of 1 trainings to run.'
