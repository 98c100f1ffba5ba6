"""WinogradConv2d against plain convolutions, and where it stays one."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmcen.layers import winograd
from mmcen.layers.winograd import WinogradConv2d, save_multiplications, winograd_conv
from tests.optional import need_mmagic


@pytest.mark.parametrize('size', [(4, 4), (5, 7), (9, 10), (31, 16)])
def test_equals_a_plain_convolution_with_its_gradients(size):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 5, *size), torch.randn(3, 5, 4, 4)
    direction = torch.randn(2, 3, size[0] - 1, size[1] - 1)
    found = []
    for run in (winograd_conv, lambda x, w: F.conv2d(x, w, stride=1, padding=1)):
        own = [t.clone().requires_grad_() for t in (x, weight)]
        y = run(*own)
        y.backward(direction)
        found.append((y, *(t.grad for t in own)))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


def test_errors_are_about_those_of_a_sum_in_float32():
    """Product by product, because libraries add in another order on each processor."""
    torch.manual_seed(0)
    x, weight = torch.randn(1, 256, 32, 32), torch.randn(128, 256, 4, 4)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    patches, kernels = F.unfold(x, 4, padding=1)[0], weight.flatten(1)
    plain = torch.zeros(len(kernels), patches.shape[1])
    for values, of_kernels in zip(patches, kernels.t(), strict=True):
        plain += of_kernels[:, None] * values

    def error(y):
        return float((y.reshape(exact.shape) - exact).square().mean().sqrt())

    assert error(winograd_conv(x, weight)) < 2 * error(plain)


def wide(**options):
    return nn.Conv2d(128, 130, 4, **{'stride': 1, 'padding': 1, **options})


def test_replaces_wide_convolutions_of_stride_1_alone():
    others = [nn.Conv2d(128, 1, 4, 1, 1), wide(stride=2), wide(padding_mode='reflect')]
    network = nn.Sequential(wide(), nn.Sequential(wide(bias=False), *others))
    names, parameters = list(network.state_dict()), list(network.parameters())
    save_multiplications(network)
    replaced = [name for name, m in network.named_modules() if type(m) is WinogradConv2d]
    assert replaced == ['0', '1.0']
    assert list(network.state_dict()) == names
    assert all(a is b for a, b in zip(network.parameters(), parameters, strict=True))


def test_is_a_plain_convolution_where_that_is_faster(monkeypatch):
    network = nn.Sequential(wide())
    save_multiplications(network)
    used = []
    monkeypatch.setattr(
        winograd, 'winograd_conv', lambda *args: used.append(1) or winograd_conv(*args)
    )
    x = torch.randn(1, 128, 8, 8)
    plain = F.conv2d(x, network[0].weight, network[0].bias, padding=1)
    torch.testing.assert_close(network(x), plain, rtol=1e-4, atol=1e-4)
    assert used == [1]
    deepcopy(network).double()(x.double())
    with torch.autocast('cpu', torch.bfloat16):
        network(x)
    network(x[0])  # without a batch
    monkeypatch.setattr(winograd, 'MANY_PIXELS', 63)
    network(x)
    assert used == [1]


def test_the_discriminators_of_a_translator_have_one():
    need_mmagic()
    from mmcen.models.translators.cen_translator import TaskDiscriminators, import_mmagic

    import_mmagic()
    judge = dict(type='mmagic.PatchDiscriminator', in_channels=6, norm_cfg=dict(type='IN'))
    judges = TaskDiscriminators(['rgb'], judge)
    assert [type(m) for m in judges.modules()].count(WinogradConv2d) == 1
