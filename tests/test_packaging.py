"""A wheel has what ``mim train mmcen CONFIG`` and ``mim test mmcen CONFIG`` look for."""

import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config
from packaging.requirements import Requirement

from mmcen.version import __version__
from tests.training import ENV, ROOT

UPSTREAM = {'mmengine', 'mmcv-lite', 'mmsegmentation'}
ONEDL = {'onedl-mmengine', 'onedl-mmcv', 'onedl-mmsegmentation'}


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


def test_the_package_is_whole_and_alone(installed):
    place = ROOT / 'mmcen'
    for kind in ('*.py', '*.html'):
        files = {path.relative_to(place) for path in place.rglob(kind)}
        own = {path.relative_to(installed) for path in installed.rglob(kind)}
        assert {path for path in own if path.parts[0] != '.mim'} == files
    info = f'mmcen-{__version__}.dist-info'
    assert {path.name for path in installed.parent.iterdir()} == {'mmcen', info}
    (command,) = PathDistribution(installed.parent / info).entry_points
    assert (command.name, command.value) == ('mmcen', 'mmcen.cli:main')


@pytest.mark.parametrize(
    'python, stack',
    [('3.10', UPSTREAM), ('3.11', UPSTREAM), ('3.12', UPSTREAM), ('3.13', ONEDL), ('3.14', ONEDL)],
)
def test_all_brings_the_stack_that_has_wheels(installed, python, stack):
    (info,) = installed.parent.glob('*.dist-info')
    needed = map(Requirement, PathDistribution(info).requires)
    here = {'extra': 'all', 'python_version': python}
    names = {need.name for need in needed if need.marker is None or need.marker.evaluate(here)}
    assert names & (UPSTREAM | ONEDL) == stack
    assert {'torch', 'diffusers', 'timm', 'onnxruntime'} <= names


def test_a_script_beside_a_clone_imports_the_package(tmp_path):
    """The folder of the clone, which is called mmcen as well, is no package of that name."""
    (tmp_path / 'mmcen').mkdir()
    script = tmp_path / 'own.py'
    script.write_text('import importlib.util as u; print(u.find_spec("mmcen").origin)')
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).name == '__init__.py'


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


@pytest.mark.parametrize('tool', ['train', pytest.param('test', marks=pytest.mark.long)])
def test_tools_run_from_there(installed, tool, tmp_path):
    run = subprocess.run(
        [sys.executable, installed / '.mim' / 'tools' / f'{tool}.py', '--help'],
        cwd=tmp_path, env={**ENV, 'PYTHONPATH': str(installed.parent)}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert 'config' in run.stdout
