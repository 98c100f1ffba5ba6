"""Files that can be read and are hardly what they should be are doubted, once for each folder."""

import re
import warnings
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image

from mmcen import cli
from mmcen.datasets.transforms import plausible
from mmcen.datasets.transforms.plausible import (
    ImplausibleWarning,
    check_bits,
    check_colour,
    check_depth,
    has_content,
)
from tests.fuzz.world import make_world

ROOM = np.random.default_rng(0).uniform(1, 5, (48, 64)).astype(np.float32)


def sparse(share):
    depth = ROOM.copy()
    depth[np.random.default_rng(1).uniform(size=depth.shape) > share] = 0
    return depth


@pytest.mark.parametrize('depth', [ROOM, ROOM * 15, ROOM / 10, sparse(0.3)])
def test_rooms_and_streets_pass(depth, recwarn, tmp_path):
    check_depth(depth, str(tmp_path / 'a.png'))
    check_colour(3, str(tmp_path / 'a.png'))
    check_bits('uint16', 'mm', str(tmp_path / 'a.png'))
    check_bits('uint8', {'uint8': 0.02}, str(tmp_path / 'a.png'))
    assert not recwarn


@pytest.mark.parametrize(
    'check, text',
    [
        (lambda path: check_depth(ROOM * 1000, path), 'has a median depth of '),
        (lambda path: check_depth(ROOM / 1000, path), 'has a median depth of '),
        (lambda path: check_depth(sparse(0.01), path), 'has no depth in '),
        (
            lambda path: has_content(ROOM[..., None] * 0, path),
            'has no content, all its pixels are 0:',
        ),
        (lambda path: check_bits('uint8', 'mm', path), 'is depth of 8 bits'),
        (lambda path: check_colour(1, path), 'has one channel, but its modality is colour'),
    ],
)
def test_doubts(check, text, tmp_path):
    first, second, elsewhere = (str(tmp_path / name) for name in ('a.png', 'b.png', 'c/a.png'))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        for path in (first, second, elsewhere):
            check(path)
    assert [str(one.message).split()[0] for one in told] == [first, elsewhere]
    assert all(text in str(one.message) for one in told)


def test_strict(tmp_path):
    """As errors every file is refused, not the first alone."""
    with warnings.catch_warnings():
        warnings.simplefilter('error', ImplausibleWarning)
        for name in ('a.png', 'b.png'):
            with pytest.raises(ValueError, match=f'{name} has a median depth of'):
                check_depth(ROOM * 1000, str(tmp_path / name))


@pytest.fixture
def metres(tmp_path, monkeypatch):
    """A data set of depth in metres, and a config that takes it for millimetres."""
    make_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    for path in Path('depth').iterdir():
        Image.fromarray(np.asarray(Image.open(path)) // 1000).save(path)
    plausible._told.cache_clear()


DOUBT = r'depth/\S+png has a median depth of 0\.00\d+ m, not within 0\.1 to 100: correct the unit'


def test_a_training_warns(metres, recwarn):
    assert cli.main(['train', 'own.py', '--cfg-options', f'experiment_name={uuid4()}']) == 0
    told = [str(w.message) for w in recwarn if issubclass(w.category, ImplausibleWarning)]
    assert len(told) == 1
    assert re.search(DOUBT, told[0])
    assert Path('work_dirs/own/epoch_2.pth').is_file()


@pytest.mark.parametrize(
    'words',
    [
        ['train', 'own.py'],
        ['predict', 'own.onnx', '--input', 'rgb=rgb/a.png', 'depth=depth/a.png'],
    ],
)
def test_strict_commands_refuse(metres, capsys, words):
    try:
        status = cli.main([*words, '--strict'])
    except SystemExit as stop:
        status = stop.code
    assert status in (1, 2)
    assert re.search(f'error: .*{DOUBT}', capsys.readouterr().err.splitlines()[-1])
    assert not list(Path().rglob('epoch_*.pth'))
