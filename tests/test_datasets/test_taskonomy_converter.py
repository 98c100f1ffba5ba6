"""Lists of Taskonomy, through the command line: layouts, splits, seeds, faults, a training."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmcen.datasets import TaskonomyDataset
from tests.converters import command, contents
from tests.training import two_steps

DOMAINS = dict(rgb=3, depth_euclidean=1, normal=3, reshading=1, segment_semantic=1)
LAYOUTS = {
    'sample': '{domain}',
    'tars of one building together': '{building}/{domain}',
    'tars one by one': '{building}_{domain}',
    'tars one by one, nested': '{building}_{domain}/{domain}',
    'as read': '{domain}/{building}',
    'omnidata': '{domain}/taskonomy/{building}',
}
BUILDINGS = ['airport', 'almena', 'beach', 'cosmos', 'darden', 'edson']
SMALL = ('--train', '4', '--val', '2', '--test', '0', '--large', '8')


def write_frames(root: Path, layout: str, building: str, count: int = 4) -> None:
    """Frames of noise, two views of each point, 32x32, in the official types and names."""
    rng = np.random.default_rng(sum(building.encode()))
    for domain, channels in DOMAINS.items():
        folder = root / LAYOUTS[layout].format(domain=domain, building=building)
        folder.mkdir(parents=True, exist_ok=True)
        high, dtype = (9999, np.uint16) if domain.startswith('depth') else (255, np.uint8)
        name = domain.replace('segment_semantic', 'segmentsemantic')
        for i in range(count):
            shape = (32, 32, channels)[: 3 if channels > 1 else 2]
            picture = rng.integers(0, 9 if channels == 1 and high < 256 else high, shape, dtype)
            file = folder / f'point_{i // 2}_view_{i % 2}_domain_{name}.png'
            cv2.imwrite(str(file), picture)
        (folder / 'point_0_view_0_domain_fixatedpose.json').write_text('{}')


@pytest.fixture
def call(capsys):
    """The tool in this process: what it printed, or its error."""

    def run(*words, fails=False) -> str:
        status = command('convert-data', 'taskonomy', *map(str, words), '--workers', '2')
        printed = capsys.readouterr()
        assert bool(status) == fails, printed
        return printed.err if fails else printed.out

    return run


def lists(out: Path) -> dict[str, list[str]]:
    return {path.stem: path.read_text().split() for path in (out / 'splits').glob('*.txt')}


@pytest.fixture
def tars(tmp_path) -> Path:
    """Six buildings of four frames."""
    for building in BUILDINGS:
        write_frames(tmp_path / 'tars', 'tars one by one', building)
    return tmp_path / 'tars'


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_layout_is_read(tmp_path, call, layout):
    """The dataset finds the files of the frames that the lists name, bit by bit."""
    buildings = [''] if layout == 'sample' else BUILDINGS[:3]
    for building in buildings:
        write_frames(tmp_path / 'from', layout, building, 12 if layout == 'sample' else 4)
    out = tmp_path / 'out'
    printed = call(tmp_path / 'from', '--out', out, *SMALL)
    assert '4 train, 2 val, 8 train_8: 5 domains of 10 frames' in printed
    for name, frames in lists(out).items():
        load = [dict(type='LoadModalities')]
        dataset = TaskonomyDataset(
            list(DOMAINS), data_root=str(out), ann_file=f'splits/{name}.txt', pipeline=load
        )
        assert len(dataset) == len(frames) == {'train': 4, 'val': 2, 'train_8': 8}[name]
        for frame, sample in zip(frames, dataset, strict=True):
            building, _, stem = frame.rpartition('/')
            folder = LAYOUTS[layout].format(domain='rgb', building=building)
            file = tmp_path / 'from' / folder / f'{stem}_domain_rgb.png'
            stored = cv2.imread(str(file))[..., ::-1]
            np.testing.assert_array_equal(sample['modalities']['rgb'], stored)
    link = next((out / 'rgb').rglob('*.png'))
    assert not Path(link.readlink()).is_absolute()  # both folders may move together


def test_a_set_in_place_gets_lists_alone(tmp_path, call):
    write_frames(tmp_path, 'sample', '', 12)
    before = sorted((tmp_path / 'rgb').iterdir())
    call(tmp_path, '--out', tmp_path, '--domains', 'rgb', 'normal', *SMALL)
    assert sorted((tmp_path / 'rgb').iterdir()) == before
    assert not any(path.is_symlink() for path in tmp_path.rglob('*'))
    assert len(lists(tmp_path)['train']) == 4


def test_lists_share_no_building_and_no_point(tmp_path, tars, call):
    call(tars, '--out', tmp_path / 'out', *SMALL)
    made = lists(tmp_path / 'out')
    of = {name: {frame.split('/')[0] for frame in frames} for name, frames in made.items()}
    assert not of['val'] & (of['train'] | of['train_8'])
    assert set(made['train']) < set(made['train_8'])
    write_frames(tmp_path / 'flat', 'sample', '', 12)
    call(tmp_path / 'flat', '--out', tmp_path / 'second', *SMALL)
    made = lists(tmp_path / 'second')
    of = {name: {frame.split('_view')[0] for frame in frames} for name, frames in made.items()}
    assert not of['val'] & (of['train'] | of['train_8'])


def test_the_seed_makes_the_lists(tmp_path, tars, call):
    for name, seed in (('a', 3), ('b', 3), ('c', 4)):
        call(tars, '--out', tmp_path / name, '--seed', seed, *SMALL)
    a, b, c = (lists(tmp_path / name) for name in 'abc')
    assert a == b
    assert a['train'] != c['train']
    note = json.loads((tmp_path / 'a' / 'source.json').read_text())
    assert note['seed'] == 3
    assert note['drawn'] == {'train': 4, 'val': 2, 'train_8': 8}
    assert note['from']['val'] == '4 frames of 1 buildings'
    assert note['domains'] == ['rgb', 'normal', 'reshading', 'depth_euclidean', 'segment_semantic']


def test_the_official_split_of_buildings(tmp_path, tars, call):
    table = tmp_path / 'split.csv'
    rows = ['almena,1,0,0', 'cosmos,1,0,0', 'darden,0,1,0', 'edson,0,0,1', 'absent,1,0,0']
    table.write_text('\n'.join(['id,train,val,test', *rows, 'beach,0,0,0']))
    words = (tars, '--split-csv', table, '--train', '8', '--val', '3', '--test', '2')
    assert 'no train_15000.txt: there are 8 frames of 15000' in call(*words, '--out', tmp_path)
    of = {name: {f.split('/')[0] for f in frames} for name, frames in lists(tmp_path).items()}
    assert of == {'train': {'almena', 'cosmos'}, 'val': {'darden'}, 'test': {'edson'}}
    assert {name: len(frames) for name, frames in lists(tmp_path).items()} == dict(
        train=8, val=3, test=2
    )


@pytest.mark.parametrize(
    'text, error',
    [
        ('id,train,val\na,1,0', 'lacks a column of id, train, val, test'),
        ('id,train,val,test\nalmena,1,1,0', "line 2: building 'almena' must be listed once"),
        ('id,train,val,test\nalmena,1,0,0\nalmena,0,1,0', "line 3: building 'almena'"),
        ('id,train,val,test\nalmena,yes,0,0', "has ['yes', '0', '0']"),
        ('id,train,val,test\nelsewhere,1,0,0', 'has none of the buildings in'),
        ('id,train,val,test\nalmena,1,0,0', 'val needs 2 frames, but'),
    ],
)
def test_a_split_that_does_not_hold(tmp_path, tars, call, text, error):
    table = tmp_path / 'split.csv'
    table.write_text(text)
    words = (tars, '--out', tmp_path / 'out', '--split-csv', table, *SMALL)
    assert error in call(*words, fails=True)


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


SPOILT = [
    (lambda path: path.unlink(), '24 rgb, 23 normal, '),
    (cut, '{path} cannot be read'),
    (lambda path: cv2.imwrite(str(path), np.zeros((8, 16, 3))), 'must be aligned pixel by pixel'),
    (lambda path: cv2.imwrite(str(path), np.zeros((32, 32))), "'normal' is stored as uint8 of 3"),
]


@pytest.mark.parametrize('spoil, text', SPOILT)
def test_a_bad_frame_gives_way_to_the_next(tmp_path, tars, call, spoil, text):
    """As the official tars have some; the same lists again, and when the frame is whole, too."""
    whole, out = tmp_path / 'whole', tmp_path / 'out'
    call(tars, '--out', whole, *SMALL)
    frame = lists(whole)['train'][1]
    building, stem = frame.split('/')
    path = tars / f'{building}_normal' / f'{stem}_domain_normal.png'
    good = path.read_bytes()
    spoil(path)
    assert text.format(path=path) in call(tars, '--out', out, *SMALL)
    first, made = lists(whole), lists(out)
    if first['val'] == made['val']:  # else the building of the frame is another list's
        rest = [name for name in first['train_8'] if name != frame]
        assert made['train'] == rest[:4]
        assert made['train_8'][:7] == rest
    assert all(frame not in names for names in made.values())
    assert {name: len(of) for name, of in made.items()} == dict(train=4, val=2, train_8=8)
    bad = json.loads((out / 'source.json').read_text())['unreadable']
    assert list(bad) == ([frame] if path.exists() else [])
    if path.exists():
        path.write_bytes(good)  # the lists are what they are until they are drawn again
        call(tars, '--out', out, *SMALL)
        assert lists(out) == made
        call(tars, '--out', out, *SMALL, '--overwrite')
        assert lists(out) == first


def test_a_point_less_to_validate_takes_one_from_training(tmp_path, call):
    """Of one building, where whole points are divided until there are enough frames."""
    write_frames(tmp_path / 'from', 'sample', '', 12)
    words = (tmp_path / 'from', '--train', '4', '--val', '2', '--large', '0')
    call(*words, '--out', tmp_path / 'whole')
    bad = lists(tmp_path / 'whole')['val'][0]
    cut(tmp_path / 'from' / 'normal' / f'{bad}_domain_normal.png')
    call(*words, '--out', tmp_path / 'out')
    made = lists(tmp_path / 'out')
    assert {name: len(of) for name, of in made.items()} == dict(train=4, val=2)
    of = {name: {frame.split('_view')[0] for frame in frames} for name, frames in made.items()}
    assert not of['val'] & of['train']


def test_too_few_are_whole_and_after_their_repair_it_goes_on(tmp_path, tars, call):
    words = (tars, '--out', tmp_path / 'out', '--train', '20', '--val', '4', '--large', '0')
    kept = tars / 'kept'
    (tars / 'beach_normal').rename(kept)
    (tars / 'beach_normal').mkdir()
    assert 'train needs 20 frames, but' in call(*words, fails=True)
    for path in kept.iterdir():  # damaged
        (tars / 'beach_normal' / path.name).write_bytes(path.read_bytes()[:-40])
    assert 'has 16 for it: fetch more' in call(*words, fails=True)
    assert not lists(tmp_path / 'out')  # they would say that the set is whole
    for path in kept.iterdir():
        (tars / 'beach_normal' / path.name).write_bytes(path.read_bytes())
    (tmp_path / 'out' / 'normal' / '.half.png.part').write_bytes(b'')  # as a kill leaves it
    assert 'finished already' in call(*words)
    assert len(lists(tmp_path / 'out')['train']) == 20
    assert not list((tmp_path / 'out').rglob('.*.part'))
    assert json.loads((tmp_path / 'out' / 'source.json').read_text())['unreadable'] == {}


def test_an_interrupted_overwrite_goes_on(tmp_path, tars, call, monkeypatch):
    """And takes away the links of the former lists, but none of the source."""
    out = tmp_path / 'out'
    call(tars, '--out', out, *SMALL)
    words = (tars, '--out', out, *SMALL, '--seed', '7', '--overwrite')
    replace, links = os.replace, []

    def stop(part, link):
        if Path(link).suffix == '.png':
            links.append(link)
            if len(links) > 22:  # in the middle of a frame
                raise KeyboardInterrupt
        replace(part, link)

    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', stop)
        assert 'run the same command again' in call(*words, fails=True)
    assert not lists(out)
    before = {path: path.lstat().st_mtime_ns for path in out.rglob('*.png')}
    assert before
    call(*words)
    assert all(path.lstat().st_mtime_ns == stamp for path, stamp in before.items())
    call(tars, '--out', tmp_path / 'once', *SMALL, '--seed', '7')
    assert contents(out) == contents(tmp_path / 'once')


def test_other_settings_want_overwrite(tmp_path, tars, call):
    out = tmp_path / 'out'
    call(tars, '--out', out, *SMALL)
    before = lists(out)
    error = call(tars, '--out', out, *SMALL, '--seed', '9', fails=True)
    assert 'was made from another source or in another way' in error
    assert lists(out) == before
    call(tars, '--out', out, *SMALL, '--seed', '9', '--overwrite')
    assert lists(out) != before
    (out / 'source.json').unlink()
    assert 'unknown' in call(tars, '--out', out, *SMALL, fails=True)


def test_faults_of_the_call(tmp_path, tars, call):
    out = ('--out', tmp_path / 'out')
    assert 'there is no folder' in call(tmp_path / 'no', *out, fails=True)
    (tmp_path / 'empty').mkdir()
    assert 'has no domain of Taskonomy' in call(tmp_path / 'empty', *out, fails=True)
    assert 'train needs 1000 frames, but' in call(tars, *out, '--val', '2', fails=True)
    words = (*out, '--domains', 'rgb', 'edge_texture', *SMALL)
    assert 'has no folder of edge_texture in any layout' in call(tars, *words, fails=True)
    assert '--train 0 is below 1' in call(tars, *out, '--train', '0', fails=True)


def test_never_writes_over_a_file_of_another_set(tmp_path, tars, call):
    out = tmp_path / 'out'
    call(tars, '--out', out, *SMALL)
    link = next((out / 'rgb').rglob('*.png'))
    link.unlink()
    link.write_bytes(b'precious')
    assert 'is a file of another set' in call(tars, '--out', out, *SMALL, fails=True)
    assert link.read_bytes() == b'precious'


def test_two_steps_on_what_was_drawn(tmp_path, tars, call):
    """A config of Table 9, made small."""
    out = tmp_path / 'out'
    call(tars, '--out', out, *SMALL)
    options = {
        'model.network': dict(downs=5, base_channels=4),
        'model.discriminator': dict(base_channels=4, num_conv=2),
        'train_dataloader.dataset.pipeline.2.transforms.0.scale': (36, 36),
        'train_dataloader.dataset.pipeline.3.transforms.0.crop_size': (32, 32),
        'val_dataloader.dataset.pipeline.2.transforms.0.scale': (32, 32),
    }
    options |= {f'{part}_dataloader.dataset.data_root': str(out) for part in ('train', 'val')}
    config = 'taskonomy_rgb-depth_to_normal-shade.py'
    metrics, runner = two_steps(config, tmp_path / 'work', options)
    assert len(runner.val_loop.dataloader.dataset) == 2
    found = [value for name, value in metrics.items() if 'MAE' in name]
    assert len(found) >= 4  # of normal and reshading, by stream
    assert all(0 < value < 200 for value in found)
    # times 100: of noise within -1..1 against the grey of an untrained network
    assert 40 < metrics['normal/MAE'] < 65
