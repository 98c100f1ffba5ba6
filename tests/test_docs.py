"""What README and docs/ show is true: pages build, Python runs, commands and files exist."""

import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout, suppress
from importlib.metadata import metadata
from io import StringIO
from pathlib import Path

import pytest
import torch
import torchvision
from mmengine.config import Config
from mmengine.registry import MODELS
from packaging.requirements import Requirement
from PIL import Image

from mmcen import cli
from tests.command import run_python
from tests.optional import need_mmagic
from tests.test_datasets import test_cityscapes_converter, test_sunrgbd_converter
from tests.test_datasets.test_converter import write_archives
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
    for package, word in (('mmagic', 'mmagic'), ('timm', 'CENTIMM')):
        if word in code:
            pytest.importorskip(package)
    names = {'__name__': 'block'}
    exec(compile(code, name, 'exec'), names)
    if isinstance(names.get('model'), dict):
        with torch.device('meta'):
            MODELS.build(Config(names).model if 'custom_imports' in names else names['model'])


# What a block's commands get, so that they take seconds on four frames of noise.
TRAIN = {
    'train_cfg.max_epochs=1',
    'train_dataloader.dataset.indices=2',
    'train_cfg.val_interval=1',
    'param_scheduler=None',
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'val_dataloader.num_workers=0',
    'test_dataloader.num_workers=0',
}
CROP = 'train_dataloader.dataset.pipeline'
SHORT = {
    'nyuv2': ['--expect-train', '4', '--expect-test', '2'],
    'sunrgbd': test_sunrgbd_converter.COUNTS,
    'cityscapes': test_cityscapes_converter.COUNTS,
    'taskonomy': ['--train', '4', '--val', '2'],
    'configs/cen/nyud_refinenet_r101.py': [
        'model.backbone.init_cfg=None',
        'model.data_preprocessor.size=(64, 64)',
        f'{CROP}.2.transforms.0.min_side=64',
        f'{CROP}.2.transforms.0.crop_size=(64, 64)',
        f'{CROP}.2.transforms.1.size=(64, 64)',
    ],
    'configs/cen/saliency_rooms_lwrefinenet_r18.py': ['val_dataloader.dataset.length=2'],
    'configs/cen/taskonomy_shade-texture_to_rgb.py': ['val_evaluator.metrics.rgb=[MAE]'],
}


def shortened(line):
    """The arguments of a command, and what makes it small."""
    words = shlex.split(line.split(' #')[0])
    more = [arg for name, args in SHORT.items() if name in words for arg in args]
    if words[:2] in (['mmcen', 'train'], ['python', 'tools/train.py']):
        at = words.index('--cfg-options') if '--cfg-options' in words else len(words)
        words[at : at + 1] = ['--cfg-options', *sorted(TRAIN), *more]
        more = []
    return words + more


@pytest.fixture(scope='module')
def desk(tmp_path_factory):
    """Where a reader types: the repository's folders, the official archives, Taskonomy."""
    folder = tmp_path_factory.mktemp('desk')
    for name in ('configs', 'tools', 'projects', 'mmcen'):
        (folder / name).symlink_to(ROOT / name)
    for file in write_archives(folder / 'official', 6, 4, 48, 64).iterdir():
        file.rename(folder / file.name)
    type_in(folder, 'mmcen convert-data nyuv2 nyu_depth_v2_labeled.mat')
    type_in(folder, 'mmcen convert-data derive-domains --size 256 256 --out downloads')
    for domain in (path for path in (folder / 'downloads').iterdir() if path.is_dir()):
        for building, frames in (('almena', '[1-4]'), ('darden', '[56]')):
            (domain / building).mkdir()
            for file in domain.glob(f'point_{frames}_*.png'):
                file.rename(domain / building / file.name)
    test_sunrgbd_converter.write_archives(folder / 'downloads')
    test_cityscapes_converter.write_archives(folder / 'downloads')
    (folder / 'train_val_test_tiny.csv').write_text(
        'id,train,val,test\nalmena,1,0,0\ndarden,0,1,0\n'
    )
    torch.save(torchvision.models.resnet18().state_dict(), folder / 'resnet101.pth')
    (folder / 'CONFIG.py').write_text(
        f"_base_ = '{ROOT}/configs/cen/nyud_lwrefinenet_r18_cpu.py'\n"
        'model = dict(\n'
        "    backbone=dict(base_channels=64, init_cfg=dict(_delete_=True, type='Pretrained')),\n"
        '    decode_head=dict(in_channels=[64, 128, 256, 512]),\n'
        ')\n'
    )
    return folder


def type_in(folder, line):
    words = [word if word != 'CONFIG' else 'CONFIG.py' for word in shortened(line)]
    tool = {'python': [], 'mmcen': ['-m', 'mmcen']}[words[0]]
    env = {key: value for key, value in ENV.items() if key != 'MMCEN_DATA'}
    done = run_python(*tool, *words[1:], cwd=folder, env=env, timeout=1200)
    assert done.returncode == 0, f'{line}\n{done.stdout[-2000:]}{done.stderr[-3000:]}'


@pytest.mark.long
def test_bash_runs(desk):
    """Every line of every block, in the order of the pages."""
    need_mmagic()
    lines = [
        line
        for code in BASH.values()
        for line in code.replace('\\\n', ' ').splitlines()
        if line.strip() and not line.startswith('#')
    ]
    for line in lines:
        tool, *rest = shlex.split(line.split(' #')[0])
        if tool == 'make':
            subprocess.run(['make', '-n', *rest], cwd=ROOT, check=True, capture_output=True)
        elif tool == 'pip':
            for command in line.split(' #')[0].split('&&'):
                check_requirements(shlex.split(command)[2:])
        else:
            type_in(desk, line)
    assert len(lines) >= 14
    trained = {path.name for path in (desk / 'work_dirs').iterdir() if any(path.glob('*.pth'))}
    assert trained >= {'CONFIG', 'nyud_refinenet_r101', 'nyuv2_rgb-edge_to_depth'}


def check_requirements(args):
    """What pip is told to install: extras that exist, files that parse, releases of this stack."""
    for arg in args:
        if extra := re.search(r'\[(\w+)\]', arg):
            assert extra[1] in metadata('mmcen').get_all('Provides-Extra')
        elif arg.endswith('.txt'):
            lines = [line.split('#')[0].strip() for line in (ROOT / arg).open()]
            assert [Requirement(line) for line in lines if line and line[0] != '-']
        elif not arg.startswith('-') and arg != '.':
            assert Requirement(arg).specifier


def commands():
    """Lines of bash blocks, and commands between backticks, that start a tool of ours."""
    for name, code in BASH.items():
        for line in code.replace('\\\n', ' ').splitlines():
            yield name, line.split(' #')[0].strip()
    for page in PAGES:
        for line in re.findall(
            r'`((?:MMCEN_DATA=\.\.\. )?(?:python|mmcen) [^`]*)`', page.read_text()
        ):
            yield page.stem, ' '.join(line.removeprefix('MMCEN_DATA=... ').split())


OURS = sorted(
    {line for _, line in commands() if re.match(r'python (tools|projects)/|mmcen ', line)}
)


@pytest.fixture(scope='module')
def helps():
    """What a tool says to --help, asked once."""
    found = {}

    def ask(tool):
        if tool not in found:
            found[tool] = help_of(tool)
        return found[tool]

    return ask


def help_of(tool):
    if tool[:2] == ('-m', 'mmcen'):  # in this process, which has imported all that it needs
        text = StringIO()
        with redirect_stdout(text), suppress(SystemExit):
            assert cli.main([*tool[2:], '--help']) in (None, 0)
        return text.getvalue()
    done = run_python(*tool, '--help')
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize('line', OURS)
def test_commands_exist(line, helps):
    """The tool, its options, and the configs that a command names."""
    program, first, *rest = shlex.split(line)
    tool = ('-m', 'mmcen', first) if program == 'mmcen' else (first,)
    known = ('run', 'show', 'list', 'dump', 'features', 'exchange', 'mask', 'scales')
    if rest and (first == 'convert-data' or rest[0] in known):
        tool, rest = (*tool, rest[0]), rest[1:]
    text = helps(tool)
    for word in rest:
        if word.startswith('--'):
            assert word.split('=')[0] in text, f'{word} is no option of {tool}'
        elif word.startswith(('configs/', 'tools/', 'projects/')):
            assert (ROOT / word).exists(), word


def test_links_of_the_front_pages_exist():
    """mkdocs checks those of docs/."""
    for page in ('README.md', 'CONTRIBUTING.md'):
        for link in re.findall(r'\]\((?!http)([^)#]+)', (ROOT / page).read_text()):
            assert (ROOT / link).exists(), (page, link)


def test_files_exist():
    """Paths of the repository between backticks."""
    for page in PAGES:
        for path in re.findall(
            r'`((?:mmcen|configs|tools|projects|tests|docs|examples)/[\w/.\-]+)`', page.read_text()
        ):
            assert (ROOT / path).exists() or Path(path).suffix == '', (page.name, path)
