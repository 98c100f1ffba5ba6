"""mmcen convert-data official-segmenter: the converted model is the official one, or an error."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from mmseg.models.backbones.resnet import Bottleneck
from torch import nn

from mmcen import cli
from mmcen.converters.official_segmenter import convert
from mmcen.core import exchanged_shares
from mmcen.models.backbones import CENResNet
from tests.converters import call
from tests.official import OfficialSegmenter, randomised

NAMES = Path(__file__).parents[1] / 'data' / 'official_seg_r50_keys.json'
WIDTH = 4
CLASSES = 5
LEGACY = {'_use_new_zipfile_serialization': False}  # torch before 1.6, as in early 2020


@pytest.fixture
def tiny(monkeypatch):
    """ResNet-50 with one block a stage, so that the official model is small."""
    monkeypatch.setitem(CENResNet.arch_settings, 50, (Bottleneck, (1, 1, 1, 1)))


def make_official(streams=2, seed=0):
    torch.manual_seed(seed)
    model = OfficialSegmenter([1, 1, 1, 1], streams, CLASSES, width=WIDTH)
    return randomised(model, torch.Generator().manual_seed(seed)).eval()


def make_ours(streams, names=('rgb', 'depth', 'normal')):
    return MODELS.build(
        {
            'type': 'CENEncoderDecoder',
            'data_preprocessor': {
                'type': 'CENDataPreprocessor',
                'modalities': [
                    {'name': n, 'mean': [0.0] * 3, 'std': [1.0] * 3} for n in names[:streams]
                ],
            },
            'backbone': {
                'type': 'CENResNet',
                'depth': 50,
                'stem_channels': WIDTH,
                'base_channels': WIDTH,
                'norm_cfg': {'type': 'CENBN', 'region': 'all'},
            },
            'decode_head': {
                'type': 'RefineNetHead',
                'in_channels': [WIDTH * 4 * 2**i for i in range(4)],
                'num_classes': CLASSES,
            },
        }
    )


def test_oracle_has_the_official_names_and_shapes():
    with torch.device('meta'):
        oracle = OfficialSegmenter([3, 4, 6, 3])
    shapes = [[name, list(value.shape)] for name, value in oracle.state_dict().items()]
    assert shapes == json.loads(NAMES.read_text())


@pytest.mark.parametrize('depth', [50, 101, 152])
@pytest.mark.parametrize('streams', [1, 2, 3])
def test_full_size_models_convert(depth, streams):
    with torch.device('meta'):
        official = OfficialSegmenter(CENResNet.arch_settings[depth][1], streams).state_dict()
        _, arch = convert({f'module.{name}': value for name, value in official.items()})
    assert arch == (depth, streams, 40, 64, 256)


@pytest.mark.parametrize('streams', [1, 2, 3])
def test_converted_model_gives_the_official_outputs(streams, tiny):
    official = make_official(streams)
    ours = make_ours(streams)
    ours.load_state_dict(convert(official.state_dict())[0])
    ours.eval()
    shares = exchanged_shares(ours)
    assert len(shares) == (4 if streams > 1 else 0)
    assert all(share.max() > 0 for share in shares.values())
    images = torch.randn(2, streams, 3, 64, 80)
    expected = official([*images.unbind(1)])
    outputs = ours._forward(images.flatten(1, 2))
    torch.testing.assert_close(outputs.pop('ensemble'), expected.pop(), rtol=1e-5, atol=1e-5)
    for output, theirs in zip(outputs.values(), expected, strict=True):
        assert theirs.std() > 0.01
        torch.testing.assert_close(output, theirs, rtol=1e-5, atol=1e-5)


def test_converted_model_gives_the_official_gradients(tiny):
    official, ours = make_official(), make_ours(2)
    ours.load_state_dict(convert(official.state_dict())[0])
    ours.eval()  # frozen statistics, no dropout
    images = torch.randn(1, 2, 3, 64, 64)
    sum(y.square().mean() for y in official([*images.unbind(1)])).backward()
    sum(y.square().mean() for y in ours._forward(images.flatten(1, 2)).values()).backward()
    # gradients travel the same road as values: put them into state dicts and convert
    for model in (official, ours):
        for parameter in model.parameters():
            parameter.data = parameter.grad
    expected = convert(official.state_dict())[0]
    for name, parameter in ours.named_parameters():
        scale = expected[name].abs().max().item()
        assert scale > 0, name
        torch.testing.assert_close(
            parameter.data, expected[name], rtol=1e-4, atol=1e-5 * scale, msg=name
        )


def drop(name):
    return lambda state: state.pop(name)


def put(name, *shape):
    return lambda state: state.update({name: torch.zeros(shape)})


def drop_stage(state):
    for name in [name for name in state if name.startswith('layer3.')]:
        del state[name]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (drop('layer2.0.bn2.bn_1.weight'), 'missing from the checkpoint: layer2.0.bn2.bn_1.weight'),
        (drop('clf_conv.module.weight'), 'missing from the checkpoint: clf_conv.module.weight'),
        (drop('alpha'), 'missing from the checkpoint: alpha'),
        (put('layer1.0.bn2.bn_2.weight', 4), 'unknown in the checkpoint: layer1.0.bn2.bn_2.weight'),
        (put('clf_conv2.weight', 4), 'unknown in the checkpoint: clf_conv2.weight'),
        (put('alpha', 3), r'alpha make shape \(1, 3\), ResNet-50 with 2 streams needs \(1, 2\)'),
        (put('bn1.bn_1.bias', 3), r"streams differ in shape: \{'bn1.bn_0.bias': \(4,\)"),
        (put('layer1.0.conv2.module.weight', 4, 4, 1, 1), r'make shape \(4, 4, 1, 1\)'),
        (put('bn1.bn_2.weight', 4), 'missing from the checkpoint: bn1.bn_2.bias.* and [0-9]+ more'),
        (drop_stage, r'\(1, 1, 0, 1\) blocks fit neither ResNet-50 nor 101 nor 152'),
        (lambda state: state.clear(), 'missing from the checkpoint: conv1.module.weight'),
    ],
)
def test_every_tensor_is_used_and_none_missing(change, message, tiny):
    state = make_official().state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        convert(state)


@pytest.mark.parametrize('legacy', [{}, LEGACY])
def test_command_writes_a_checkpoint(legacy, tiny, tmp_path, capsys):
    official = make_official()
    source, destination = tmp_path / 'official.pth.tar', tmp_path / 'ours.pth'
    state = nn.DataParallel(official).state_dict()
    torch.save(
        {'segmenter': state, 'epoch_start': 7, 'best_val': np.float64(0.5)}, source, **legacy
    )
    assert call('official-segmenter', str(source), str(destination)) == 0
    assert 'ResNet-50, 2 streams, 5 classes' in capsys.readouterr().out
    checkpoint = torch.load(destination, weights_only=True)
    assert checkpoint['meta']['depth'] == 50
    assert checkpoint['meta']['converted_from'] == 'official.pth.tar'
    make_ours(2).load_state_dict(checkpoint['state_dict'])
    with pytest.raises(ValueError, match=r"modalities \['rgb', 'depth'\], the model has \['depth'"):
        make_ours(2, ['depth', 'rgb']).load_state_dict(checkpoint['state_dict'])
    assert sorted(path.name for path in tmp_path.iterdir()) == ['official.pth.tar', 'ours.pth']


def truncated(share, **kwargs):
    def save(path):
        torch.save({'segmenter': make_official().state_dict()}, path, **kwargs)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return save


@pytest.mark.parametrize('name', [b'numpy.core.', b'numpy._core.'])
def test_best_score_of_any_numpy_loads(name, tiny, tmp_path):
    source, destination = tmp_path / 'official.pth', tmp_path / 'ours.pth'
    state = make_official().state_dict()
    torch.save({'segmenter': state, 'best_val': np.float64(0.5)}, source, **LEGACY)
    content = source.read_bytes()
    assert content.count(b'numpy.core.') + content.count(b'numpy._core.') == 1
    source.write_bytes(re.sub(rb'numpy\._?core\.', name, content))
    assert call('official-segmenter', str(source), str(destination)) == 0


@pytest.mark.parametrize(
    ('prepare', 'message'),
    [
        (lambda path: None, 'No such file'),
        (lambda path: path.write_bytes(b''), 'not a complete PyTorch checkpoint'),
        (lambda path: path.write_text('<html>404</html>'), 'not a complete PyTorch checkpoint'),
        (truncated(0.1), 'not a complete PyTorch checkpoint'),
        (truncated(0.9), 'not a complete PyTorch checkpoint'),
        (truncated(0.1, **LEGACY), 'not a complete PyTorch checkpoint'),
        (truncated(0.9, **LEGACY), 'not a complete PyTorch checkpoint'),
        (lambda path: torch.save({'model': {}}, path), "expected {'segmenter': state_dict}"),
        (lambda path: torch.save({'segmenter': {'alpha': 1}}, path), "got ['segmenter']"),
        (lambda path: torch.save([1], path), 'got list'),
    ],
)
def test_unusable_files_are_named_and_nothing_is_written(prepare, message, tmp_path, capsys):
    source, destination = tmp_path / 'source.pth', tmp_path / 'ours.pth'
    destination.write_text('older')
    prepare(source)
    assert call('official-segmenter', str(source), str(destination)) == 1
    error = capsys.readouterr().err
    assert error.startswith(f'error: {source}: ')
    assert message in error
    assert destination.read_text() == 'older'


def test_failed_write_leaves_nothing_behind(tiny, tmp_path, monkeypatch, capsys):
    source, destination = tmp_path / 'official.pth', tmp_path / 'ours.pth'
    torch.save({'segmenter': make_official().state_dict()}, source)

    def fail(checkpoint, path):
        path.write_bytes(b'half')
        raise OSError('disk full')

    monkeypatch.setattr(torch, 'save', fail)
    assert call('official-segmenter', str(source), str(destination)) == 1
    assert 'error: disk full' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['official.pth']


def test_help_tells_what_it_does(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(['convert-data', 'official-segmenter', '--help'])
    assert stop.value.code == 0
    assert 'checkpoint of the official CEN segmenter' in capsys.readouterr().out
