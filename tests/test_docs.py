"""What README and docs/ show is true: pages build, Python runs, commands and files exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image

from tests.training import ENV, ROOT

PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('**/*.md'))]
BLOCK = re.compile(r'^```(\w*)\n(.*?)^```', re.MULTILINE | re.DOTALL)


def blocks(language):
    """Code of a language by page and number."""
    return {
        f'{page.stem}-{i}': code
        for page in PAGES
        for i, (kind, code) in enumerate(BLOCK.findall(page.read_text()))
        if kind == language
    }


PYTHON, BASH = blocks('python'), blocks('bash')


def test_pages_build_without_warnings(tmp_path):
    run = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', tmp_path / 'site'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert 'Eq. 4' in (tmp_path / 'site' / 'equations' / 'index.html').read_text()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What the blocks name: a config, its checkpoint, two pictures, an empty data set."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'config.py').write_text(f"_base_ = '{ROOT}/configs/cen/rooms_lwrefinenet_r18.py'")
    model = MODELS.build(Config.fromfile('config.py').model)
    torch.save(dict(state_dict=model.state_dict(), meta={}), 'checkpoint.pth')
    Image.new('RGB', (64, 48)).save('a.png')
    Image.new('I;16', (64, 48), 2000).save('b.png')
    return tmp_path


def test_there_are_blocks():
    assert len(PYTHON) >= 6
    assert len(BASH) >= 5


@pytest.mark.parametrize('name', PYTHON)
def test_python_runs(folder, name):
    """Configs are built, too: a block that ends with a ``model`` describes one."""
    code = PYTHON[name]
    if 'mmagic' in code:
        pytest.importorskip('mmagic')
    names = {'__name__': 'block'}
    exec(compile(code, name, 'exec'), names)
    if isinstance(names.get('model'), dict):
        with torch.device('meta'):
            MODELS.build(Config(names).model if 'custom_imports' in names else names['model'])


def commands():
    """Lines of bash blocks, and commands between backticks, that start a tool of ours."""
    for name, code in BASH.items():
        for line in code.replace('\\\n', ' ').splitlines():
            yield name, line.split(' #')[0].strip()
    for page in PAGES:
        for line in re.findall(r'`((?:MMCEN_DATA=\.\.\. )?python [^`]*)`', page.read_text()):
            yield page.stem, ' '.join(line.removeprefix('MMCEN_DATA=... ').split())


OURS = sorted({line for _, line in commands() if re.match(r'python (tools/|-m mmcen)', line)})


@pytest.fixture(scope='module')
def helps():
    """What a tool says to --help, asked once."""
    found = {}

    def ask(tool):
        if tool not in found:
            run = subprocess.run(
                [sys.executable, *tool, '--help'], cwd=ROOT, env=ENV, capture_output=True, text=True
            )
            assert run.returncode == 0, run.stderr
            found[tool] = run.stdout
        return found[tool]

    return ask


@pytest.mark.parametrize('line', OURS)
def test_commands_exist(line, helps):
    """The tool, its options, and the configs that a command names."""
    words = shlex.split(line)[1:]
    tool = tuple(words[:2]) if words[0] == '-m' else (words[0],)
    rest = words[len(tool) :]
    if rest and rest[0] in ('run', 'show', 'list', 'features', 'exchange', 'scales'):
        tool, rest = (*tool, rest[0]), rest[1:]
    text = helps(tool)
    for word in rest:
        if word.startswith('--'):
            assert word.split('=')[0] in text, f'{word} is no option of {tool}'
        elif word.startswith(('configs/', 'tools/')):
            assert (ROOT / word).exists(), word


def test_files_exist():
    """Paths of the repository between backticks."""
    for page in PAGES:
        for path in re.findall(
            r'`((?:mmcen|configs|tools|tests|docs)/[\w/.\-]+)`', page.read_text()
        ):
            assert (ROOT / path).exists() or Path(path).suffix == '', (page.name, path)
