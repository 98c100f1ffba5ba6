"""The examples run and do what they claim."""

import ast

import cen_in_one_file as one_file
import pytest
import torch
import torchvision
import torchvision_deeplab
from PIL import Image
from torch import nn

import mmcen
from tests.training import ROOT


def test_one_file_imports_torch_alone():
    tree = ast.parse((ROOT / 'examples' / 'cen_in_one_file.py').read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
             for alias in node.names]  # fmt: skip
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.partition('.')[0] for name in names} == {'argparse', 'torch'}


def test_one_file_learns_by_exchange():
    """Neither stream can tell the classes apart until channels are exchanged."""
    faster = ['--steps', '150', '--lr', '0.02', '--weight', '0.05']
    history = one_file.main(faster)
    first, last = history[0], history[-1]
    shares = [share for _, share, *_ in history]
    assert shares[0] == 0
    assert shares[-1] > 0.2
    assert last[0] < 0.5 * first[0]
    assert min(last[2:]) > 60  # 40 without exchange


def test_one_file_exchanges_nothing_at_threshold_0(capsys):
    history = one_file.main(['--steps', '2', '--theta', '0'])
    assert all(share == 0 for _, share, *_ in history)
    assert 'mIoU' in capsys.readouterr().out


@pytest.mark.parametrize('modalities', [1, 2, 3])
@pytest.mark.parametrize('training', [True, False])
def test_one_file_is_a_converted_network(modalities, training):
    """The block of the example and the same block after `convert` give the same features, penalty
    and gradients."""
    block = one_file.ConvBlock(modalities, 3, 8, stride=2, theta=0.5).double().train(training)
    for norm in block.norms.norms:
        nn.init.uniform_(norm.weight, -1, 1)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
    stock = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    network = mmcen.convert(stock, modalities=modalities, threshold=0.5).double().train(training)
    norm = network[1]
    with torch.no_grad():
        network[0].weight.copy_(block.conv.weight)
        for name in ('weight', 'bias', 'running_mean', 'running_var'):
            streams = [getattr(own, name) for own in block.norms.norms]
            getattr(norm.norm, name).copy_(torch.cat(streams))

    x = torch.randn(modalities * 4, 3, 8, 8, dtype=torch.double)
    expected, found = torch.cat(block(list(x.chunk(modalities)))), network(x)
    torch.testing.assert_close(found, expected)
    if modalities > 1:
        penalty = mmcen.core.sparsity_penalty(norm.gamma(), norm.penalised)
        torch.testing.assert_close(penalty, one_file.sparsity_penalty(block))
        share = norm.exchange_mask().double().mean().item()
        assert share == pytest.approx(one_file.exchanged_share(block))
        assert share > 0
    expected.square().sum().backward()
    found.square().sum().backward()
    torch.testing.assert_close(network[0].weight.grad, block.conv.weight.grad)
    grads = [0 * g if g.grad is None else g.grad for g in block.norms.gammas()]
    torch.testing.assert_close(norm.weight.grad, torch.cat(grads))


@pytest.mark.parametrize('selection', [['--share', '0.25'], ['--penalty', '0.005']])
def test_torchvision(selection, tmp_path, capsys):
    picture = tmp_path / 'rooms.png'
    tiny = [
        '--steps', '10', '--batch', '4', '--rooms', '8', '--held-out', '4', '--size', '32', '48'
    ]  # fmt: skip
    losses, scores = torchvision_deeplab.main([*tiny, *selection, '--out', str(picture)])
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert set(scores) == {'both', 'colour alone', 'depth alone'}
    assert all(0 <= score <= 100 for score in scores.values())
    expected = '25%' if '--share' in selection else '0%'  # ten steps shrink no scale to zero
    assert f'exchanged channels {expected}' in capsys.readouterr().out
    width, height = Image.open(picture).size
    assert width > 4 * 2 * 48
    assert height > 3 * 2 * 32


def test_torchvision_deeplab():
    """The larger network converts, and a step trains it."""
    build = torchvision.models.segmentation.deeplabv3_resnet50
    network = mmcen.convert(build(weights_backbone=None, num_classes=10), 2, budget=0.3)
    logits = network(torch.rand(4, 3, 32, 32))['out']
    assert logits.shape == (4, 10, 32, 32)
