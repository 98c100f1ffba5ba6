"""A model rebuilt from a config that mmengine dumped predicts the same, stream by stream.

mmengine sorts dicts when it dumps a config. Modalities and tasks are named so that their
alphabetical order is not the order of the streams.
"""

import pytest
import torch
from mmengine.config import Config
from mmengine.config import config as config_files
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import get_state_dict, save_checkpoint
from mmseg.apis import init_model
from yapf.yapflib.yapf_api import FormatCode

from mmcen.apis import CENInferencer
from mmcen.layers import ExchangeNorm
from mmcen.outputs import flatten
from tests.training import ROOT


@pytest.fixture(autouse=True)
def laid_out(monkeypatch):
    """Texts of configs are those of mmengine, which tests elsewhere are without."""
    monkeypatch.setattr(config_files, 'FormatCode', FormatCode)


SEGMENTATION = f"""
_base_ = '{ROOT}/configs/cen/rooms_lwrefinenet_r18.py'
model = dict(
    backbone=dict(base_channels=8),
    decode_head=dict(in_channels=[8, 16, 32, 64], channels=8),
)
vis_backends = []
visualizer = dict(vis_backends=[])
"""
TASKS = """
custom_imports = dict(imports=['mmcen'])
modalities = [
    dict(name=name, mean=[mean] * 3, std=[50.0] * 3)
    for name, mean in (('rgb', 120.0), ('depth_zbuffer', 90.0), ('normal', 127.5))
]
tasks = [
    dict(name='segment_semantic', inputs=['rgb', 'depth_zbuffer'],
         head=dict(type='ClassHead', num_classes=4)),
    dict(name='normal', inputs=['rgb', 'depth_zbuffer']),
]
model = dict(
    type='CENMultiTask',
    tasks=tasks,
    data_preprocessor=dict(type='CENDataPreprocessor', modalities=modalities),
    network=dict(type='CENUNetGenerator', downs=4, base_channels=8),
)
test_dataloader = dict(dataset=dict(
    type='SyntheticRooms', modalities=['rgb', 'depth_zbuffer', 'normal'],
    pipeline=[dict(type='EncodeDomains'), dict(type='PackModalities')]))
test_cfg = dict()
test_evaluator = dict(type='StreamIoUMetric', task='segment_semantic')
default_scope = 'mmseg'
"""
TEXTS = {'segmentation': SEGMENTATION, 'tasks': TASKS}
SIZE = (32, 48)


def randomise(model):
    """As after training: norms and scores of the streams differ."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, ExchangeNorm):
                module.weight.uniform_(-0.05, 1)
                module.bias.uniform_(-1, 1)
        model.ensemble.alpha.uniform_(-1, 1)


def predict(model):
    """Outputs by name for fixed inputs by name."""
    model = model.eval()
    generator = torch.Generator().manual_seed(0)
    channels = model.data_preprocessor.channels
    frame = {
        name: 255 * torch.rand(count, *SIZE, generator=generator)
        for name, count in sorted(channels.items())
    }
    data = model.data_preprocessor({'inputs': [frame]}, False)
    with torch.no_grad():
        outputs = model(data['inputs'], mode='tensor')
    return outputs if 'ensemble' in outputs else flatten(outputs)


@pytest.fixture(params=TEXTS)
def trained(request, tmp_path):
    """A config, its checkpoint, and what the model predicts."""
    (tmp_path / 'config.py').write_text(TEXTS[request.param])
    cfg = Config.fromfile(tmp_path / 'config.py')
    cfg.work_dir, cfg.experiment_name = str(tmp_path / 'work'), str(tmp_path)
    runner = Runner.from_cfg(cfg)
    randomise(runner.model)
    meta = dict(dataset_meta=dict(classes=('a', 'b'), palette=[[0, 0, 0], [255, 0, 0]]))
    save_checkpoint(
        dict(state_dict=get_state_dict(runner.model), meta=meta), str(tmp_path / 'model.pth')
    )
    return request.param, cfg, tmp_path, predict(runner.model)


def dumped(cfg, folder):
    cfg.dump(folder / 'dumped.py')
    return folder / 'dumped.py'


def pretty(cfg, folder):
    (folder / 'pretty.py').write_text(cfg.pretty_text)
    return folder / 'pretty.py'


def copied(cfg, folder):
    """What the runner wrote into its work directory."""
    (path,) = (folder / 'work').glob('*.py')
    return path


def by_runner(path, checkpoint):
    cfg = Config.fromfile(path)
    cfg.load_from, cfg.experiment_name = str(checkpoint), str(path)
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    return runner.model


def by_init_model(path, checkpoint):
    return init_model(str(path), str(checkpoint), device='cpu')


def by_inferencer(path, checkpoint):
    return CENInferencer(str(path), str(checkpoint), device='cpu').model


@pytest.mark.parametrize('load', [by_runner, by_init_model, by_inferencer])
@pytest.mark.parametrize('write', [dumped, pretty, copied])
def test_a_rebuilt_model_is_the_same(trained, write, load):
    kind, cfg, folder, wanted = trained
    if load is by_init_model and kind == 'tasks':
        pytest.skip('init_model is for segmentors')
    path = write(cfg, folder)
    found = predict(load(path, folder / 'model.pth'))
    assert list(found) == list(wanted)
    for name in wanted:
        assert torch.equal(found[name], wanted[name]), name


def test_streams_differ(trained):
    """Else the test above would see no exchange of their places."""
    *_, wanted = trained
    by_shape = {}
    for name, value in wanted.items():
        assert not any(torch.equal(value, other) for other in by_shape.get(value.shape, [])), name
        by_shape.setdefault(value.shape, []).append(value)


def test_the_order_of_a_dump_is_that_of_the_config(trained):
    kind, cfg, folder, _ = trained
    model = MODELS.build(Config.fromfile(dumped(cfg, folder)).model)
    names = ['rgb', 'depth'] if kind == 'segmentation' else ['rgb', 'depth_zbuffer']
    tasks = ['segment_semantic', 'normal']
    expected = names if kind == 'segmentation' else [f'{t}/{n}' for t in tasks for n in names]
    assert list(model.streams) == expected
