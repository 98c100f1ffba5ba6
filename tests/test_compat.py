"""Unsupported environments end in one sentence; supported ones import, save and resume."""

from __future__ import annotations

import copy
import importlib
import inspect
import subprocess
import sys
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner

from mmcen import compat
from tests.optional import need_mmagic

from .toy import CONFIG

ROOT = Path(__file__).parents[1]
NAMED = compat.DISTRIBUTION
UPSTREAM = {
    'torch': '2.14.1+cpu',
    'torchvision': 'any',
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmseg': '1.2.2',
    'pkg_resources': 'any',
}
ONEDL = {
    **UPSTREAM,
    'mmengine': '0.10.12',
    'mmcv': '2.3.6',
    'mmseg': '1.4.2',
    'pkg_resources': None,
}


def test_what_is_named_for_this_python():
    forks = [name.startswith('onedl-') for name in compat.DISTRIBUTION.values()]
    assert forks == [sys.version_info >= (3, 13)] * 3


def test_mmagic_sees_its_numpy_and_mmcv_during_its_import_alone(monkeypatch):
    import mmcv
    import numpy as np

    monkeypatch.setattr(mmcv, '__version__', '2.3.6')
    before = hasattr(np, 'bool8')
    with pytest.raises(RuntimeError, match='import'), compat.importable_mmagic():  # noqa: PT012
        assert np.bool8 is np.bool_
        assert mmcv.__version__ == '2.1.0'
        raise RuntimeError('import')
    assert (hasattr(np, 'bool8'), mmcv.__version__) == (before, '2.3.6')


@pytest.mark.parametrize('found', [UPSTREAM, ONEDL, {**ONEDL, 'mmcv': '2.1.0'}])
def test_supported_combinations(found):
    assert compat.find_problem(found) is None


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ({'torch': None}, "mmcen needs torch, which is not installed: pip install 'torch'"),
        (
            {'mmengine': None},
            f"mmcen needs mmengine, which is not installed: pip install '{NAMED['mmengine']}'",
        ),
        (
            {'mmcv': None},
            f"mmcen needs mmcv, which is not installed: pip install '{NAMED['mmcv']}'",
        ),
        (
            {'mmseg': None},
            f"mmcen needs mmseg, which is not installed: pip install '{NAMED['mmseg']}'",
        ),
        ({'torch': '1.13.1'}, "mmcen needs torch >= 2.6, found 1.13.1: pip install 'torch>=2.6'"),
        (
            {'mmcv': '1.7.2'},
            f"mmcen needs mmcv >= 2.0, found 1.7.2: pip install '{NAMED['mmcv']}'",
        ),
        (
            {'mmseg': '0.30.0'},
            f"mmcen needs mmseg >= 1.2, found 0.30.0: pip install '{NAMED['mmseg']}'",
        ),
        (
            {'mmcv': '2.2.0'},
            'mmsegmentation 1.2.2 refuses mmcv >= 2.2, found 2.2.0: pip uninstall the '
            "distribution that brought it, then pip install 'mmcv-lite==2.1.0'",
        ),
        (
            {'pkg_resources': None},
            'mmengine 0.10.7 needs pkg_resources, which setuptools dropped: '
            "pip install 'setuptools<81'",
        ),
    ],
)
def test_unsupported_combinations(change, sentence):
    assert compat.find_problem({**UPSTREAM, **change}) == sentence


def test_versions_are_those_of_the_packages():
    for name in compat.OLDEST:
        assert compat.installed_versions()[name] == importlib.import_module(name).__version__


def test_absent_packages_are_found_absent(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    assert set(compat.installed_versions().values()) == {None}


def test_the_sentence_comes_before_any_error_of_mmseg(tmp_path):
    """With another mmcv in front of the installed one, in a process that has imported nothing."""
    package = tmp_path / 'mmcv'
    package.mkdir()
    (package / '__init__.py').write_text("raise RuntimeError('mmcv was imported')")
    (package / 'version.py').write_text("__version__ = '1.7.2'")
    code = f'import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import mmcen'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: mmcen needs mmcv >= 2.0, found 1.7.2: pip install '{NAMED['mmcv']}'"
    )


def without_ops(monkeypatch, error: ImportError) -> ModuleType:
    """The stand-in, as it is put in place when importing ``mmcv._ext`` ends in this error."""

    def fail(name: str) -> None:
        assert name == 'mmcv._ext'
        raise error

    monkeypatch.setitem(sys.modules, 'mmcv._ext', ModuleType('mmcv._ext'))
    monkeypatch.setattr(compat.importlib, 'import_module', fail)
    assert compat.provide_ops()
    return sys.modules['mmcv._ext']


def test_a_missing_operator_raises_when_called_only(monkeypatch):
    ops = without_ops(monkeypatch, ImportError('undefined symbol: c10'))
    operator = ops.deform_conv_forward
    with pytest.raises(
        RuntimeError,
        match=r"operator 'deform_conv_forward' is compiled and this mmcv has none that load "
        r'\(undefined symbol: c10\): install the full mmcv built for your torch',
    ):
        operator(1, stride=2)
    assert ops.get_compiler_version() == ops.get_compiling_cuda_version() == 'n/a'
    assert inspect.unwrap(ops) is ops  # no operator named __wrapped__, as introspection asks for
    assert ops.__spec__.loader is None


def test_compiled_operators_are_used_where_there_are_some(monkeypatch):
    compiled = ModuleType('mmcv._ext')
    monkeypatch.setitem(sys.modules, 'mmcv._ext', compiled)
    assert not compat.provide_ops()
    assert sys.modules['mmcv._ext'] is compiled


def test_everything_of_segmentation_imports():
    for name in ('mmcv.ops', 'mmseg.models', 'mmseg.apis', 'mmseg.datasets'):
        importlib.import_module(name)


def test_mmagic_imports():
    need_mmagic()
    with compat.importable_mmagic():
        importlib.import_module('mmagic.models')


def train(work_dir: Path, epochs: int, resume: bool = False) -> Runner:
    cfg = Config.fromstring(CONFIG, '.py')
    cfg.merge_from_dict(
        {'work_dir': str(work_dir), 'resume': resume, 'train_cfg.max_epochs': epochs}
    )
    cfg.experiment_name = f'{work_dir.name}_{epochs}_{resume}'
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def test_a_stopped_training_resumes_where_it_was(tmp_path):
    """mmengine's own checkpoints, with numpy values in the message hub, load and go on.

    And they go on loading after mmengine has loaded one: the OneDL one clears up its own list.
    """
    train(tmp_path / 'stopped', epochs=2)
    resumed = train(tmp_path / 'stopped', epochs=4, resume=True)
    straight = train(tmp_path / 'straight', epochs=4)
    assert resumed.iter == straight.iter == 16
    for key, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key])
    loss = resumed.message_hub.get_scalar('train/loss').data[0]
    np.testing.assert_array_equal(loss, straight.message_hub.get_scalar('train/loss').data[0])
    assert len(loss) == 16
    saved = torch.load(tmp_path / 'stopped' / 'epoch_4.pth', weights_only=True)
    assert saved['meta']['iter'] == 16


CONTENT = {
    'history': HistoryBuffer([1.0, 2.5], [1, 2]),
    'arrays': [np.arange(3, dtype=kind) for kind in ('f4', 'f8', 'i4', 'i8', 'u1')],
    'scalars': [np.float32(0.5), np.float64(0.25), np.int64(7), np.bool_(True)],
}


def assert_is_content(loaded: dict) -> None:
    np.testing.assert_array_equal(loaded['history'].data, CONTENT['history'].data)
    assert loaded['history'].mean() == CONTENT['history'].mean()
    for array, expected in zip(loaded['arrays'], CONTENT['arrays'], strict=True):
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)
    assert loaded['scalars'] == CONTENT['scalars']


def test_what_checkpoints_hold_is_loadable_by_weights_only(tmp_path):
    torch.save(copy.deepcopy(CONTENT), tmp_path / 'own.pth')
    assert_is_content(torch.load(tmp_path / 'own.pth', weights_only=True))


def test_checkpoints_of_the_other_numpy_are_loadable(tmp_path):
    """numpy 2 moved the functions of its pickles from numpy.core to numpy._core."""
    torch.save(copy.deepcopy(CONTENT), tmp_path / 'own.pth')
    names = [b'cnumpy.core.multiarray', b'cnumpy._core.multiarray']
    here, there = names if np.__version__ < '2' else reversed(names)
    with zipfile.ZipFile(tmp_path / 'own.pth') as own:
        files = {name: own.read(name) for name in own.namelist()}
    pickled = next(name for name in files if name.endswith('data.pkl'))
    assert here in files[pickled]
    files[pickled] = files[pickled].replace(here, there)
    with zipfile.ZipFile(tmp_path / 'other.pth', 'w') as other:
        for name, content in files.items():
            other.writestr(name, content)
    assert_is_content(torch.load(tmp_path / 'other.pth', weights_only=True))


class Reaching:
    """Pickles as a call of getattr on something harmless, where a log buffer has its methods."""

    def __init__(self, owner: object, name: str) -> None:
        self.call = getattr, (owner, name)

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (Path('x'), 'Unsupported global: GLOBAL pathlib'),
        (Reaching(HistoryBuffer, '__init__'), "'__init__'.* is not part of a log buffer"),
        (Reaching(np.ndarray, 'mean'), "ndarray.*'mean'.* is not part of a log buffer"),
    ],
)
def test_nothing_else_became_loadable(tmp_path, content, message):
    torch.save({'content': content}, tmp_path / 'foreign.pth')
    with pytest.raises(UnpicklingError, match=message):
        torch.load(tmp_path / 'foreign.pth', weights_only=True)
