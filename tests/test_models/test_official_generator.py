"""mmcen convert-data official-generator: the official outputs, or an error."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint
from torch import nn

from mmcen.converters.official_generator import convert
from mmcen.core import exchanged_shares
from tests.converters import call
from tests.official import OfficialGenerator

NAMES = Path(__file__).parents[1] / 'data' / 'official_i2i_gen_keys.json'
WIDTH = 4


def make_official(streams=2):
    model = OfficialGenerator(streams, width=WIDTH)
    for module in model.modules():
        if isinstance(module, nn.InstanceNorm2d):
            small = torch.rand(module.num_features) < 0.3
            gamma = torch.where(small, 0.005 * torch.randn(len(small)), 1 + 0.2 * torch.rand(1))
            module.weight.data.copy_(gamma)
            module.bias.data.normal_(0, 0.3)
    model.alpha.data.normal_()
    return model


def make_ours(streams):
    names = [f'm{i}' for i in range(streams)]
    network = dict(
        type='CENUNetGenerator',
        base_channels=WIDTH,
        norm_cfg=dict(type='CENIN', region='all'),
    )
    return MODELS.build(
        dict(type='CENMultiTask', tasks=[dict(name='rgb', inputs=names)], network=network)
    )


def test_oracle_has_the_official_names_and_shapes():
    with torch.device('meta'):
        oracle = OfficialGenerator()
    shapes = [[name, list(value.shape)] for name, value in oracle.state_dict().items()]
    assert sorted(shapes) == sorted(json.loads(NAMES.read_text()))


@pytest.mark.parametrize('streams', [1, 2, 3])
def test_converted_generator_gives_the_official_outputs(streams, tmp_path, capsys):
    official, ours = make_official(streams), make_ours(streams)
    torch.save(official.state_dict(), tmp_path / 'checkpoint-gen.pkl')
    assert (
        call('official-generator', str(tmp_path / 'checkpoint-gen.pkl'), str(tmp_path / 'ours.pth'))
        == 0
    )
    assert f'generator of {streams} streams' in capsys.readouterr().out
    load_checkpoint(ours, str(tmp_path / 'ours.pth'), strict=True)
    ours.eval()
    shares = exchanged_shares(ours)
    assert len(shares) == (6 if streams > 1 else 0)
    assert all(share.max() > 0 for share in shares.values())
    images = torch.rand(2, streams, 3, 256, 256) * 2 - 1
    expected = official([*images.unbind(1)])
    outputs = ours(dict(zip(ours.names, images.unbind(1), strict=False)))['rgb']
    torch.testing.assert_close(outputs.pop('ensemble'), expected.pop(), rtol=1e-4, atol=1e-4)
    for output, theirs in zip(outputs.values(), expected, strict=True):
        assert theirs.std() > 0.01
        torch.testing.assert_close(output, theirs, rtol=1e-4, atol=1e-4)


ERRORS = {
    'missing from the checkpoint: conv3.conv.module.bias': lambda s: s.pop(
        'conv3.conv.module.bias'
    ),
    'unknown in the checkpoint: conv9.weight': lambda s: s.update({'conv9.weight': torch.ones(1)}),
    'alpha has shape (3,), the norms have 2': lambda s: s.update(alpha=torch.ones(3)),
    'expected the state dict of a generator': lambda s: s.update(best=1.0),
}


@pytest.mark.parametrize('message', ERRORS)
def test_what_is_no_official_generator(message, tmp_path, capsys):
    state = make_official().state_dict()
    ERRORS[message](state)
    torch.save(state, tmp_path / 'gen.pkl')
    assert call('official-generator', str(tmp_path / 'gen.pkl'), str(tmp_path / 'ours.pth')) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'ours.pth').exists()


def test_full_size_converts():
    with torch.device('meta'):
        state = OfficialGenerator(4).state_dict()
    assert convert({f'module.{name}': value for name, value in state.items()})[1] == 4
