"""A wheel has what ``mim train mmcen CONFIG`` and ``mim test mmcen CONFIG`` look for."""

import subprocess
import sys
import zipfile

import pytest
import yaml
from mmengine.config import Config

from tests.training import ENV, ROOT


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """The package as a wheel installs it."""
    folder = tmp_path_factory.mktemp('wheel')
    run = subprocess.run(
        [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation',
         '--wheel-dir', folder, ROOT],
        capture_output=True, text=True, env={**ENV, 'PIP_NO_INDEX': '1'},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    (wheel,) = folder.glob('mmcen-*.whl')
    zipfile.ZipFile(wheel).extractall(folder / 'site')
    return folder / 'site' / 'mmcen'


def test_the_index_names_every_config(installed):
    place = installed / '.mim'
    index = yaml.safe_load((place / 'model-index.yml').read_text())
    models = [
        model
        for name in index['Import']
        for model in yaml.safe_load((place / name).read_text())['Models']
    ]
    listed = sorted(place / model['Config'] for model in models)
    assert listed == sorted((place / 'configs' / 'cen').glob('*.py'))
    assert all(model['Name'] == path.stem for model, path in zip(models, listed, strict=True))
    assert Config.fromfile(listed[0]).model.type


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_tools_run_from_there(installed, tool, tmp_path):
    run = subprocess.run(
        [sys.executable, installed / '.mim' / 'tools' / f'{tool}.py', '--help'],
        cwd=tmp_path, env={**ENV, 'PYTHONPATH': str(installed.parent)}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert 'config' in run.stdout
