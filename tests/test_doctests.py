"""The examples in the docstrings of mmcen run and give what they show.

One test for each module that has examples. They are found by their text, so that collecting tests
imports nothing; pytest's ``--doctest-modules`` would import all of mmcen in every worker.
"""

import doctest
import importlib

import pytest

from tests.training import ROOT

PROMPT = '>>> '
MODULES = [
    '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
    for path in sorted((ROOT / 'mmcen').glob('**/*.py'))
    if PROMPT in path.read_text()
]


def test_modules_are_found():
    assert {'mmcen.core.convert', 'mmcen.core.functional', 'mmcen.core.grid'} <= set(MODULES)


@pytest.mark.parametrize('name', MODULES)
def test_examples_of(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # an example may write files
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or '').partition('.')[0] == 'mmcen':
            raise
        pytest.skip(f'{name} needs {error.name}')
    failed, _ = doctest.testmod(module)
    assert not failed, capsys.readouterr().out
