"""bfloat16 on a CPU: where it is used, and gradients that are equal to PyTorch's own."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from mmcen.engine import BFloat16OptimWrapper, amp
from mmcen.engine.amp import FastDepthwise


def gradients(conv, x, fast, again=False):
    """Output and gradients under autocast, with PyTorch's convolution or ours."""
    conv.zero_grad()
    x = x.clone().requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        if fast:
            with FastDepthwise():
                y = checkpoint(conv, x, use_reentrant=False) if again else conv(x)
        else:
            y = conv(x)
    with FastDepthwise():
        assert conv(x).dtype == torch.float32  # without autocast
    assert ('_DepthwiseConv2d' in type(y.grad_fn).__name__) == (fast and is_slow(conv))
    y.float().square().sum().backward()
    return y.detach(), x.grad, *(p.grad.clone() for p in conv.parameters())


def is_slow(conv):
    return conv.groups > 1 and (conv.kernel_size[0] > 3 or conv.stride[0] > 1)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize(
    'kernel, stride, groups', [(5, 1, 8), (3, 2, 8), (5, 2, 8), (3, 1, 8), (5, 1, 1)]
)
def test_depthwise_gradients_are_those_of_pytorch(kernel, stride, groups, bias):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=groups, bias=bias)
    x = torch.randn(2, 8, 17, 19)
    expected = gradients(conv, x, fast=False)
    for ours in (gradients(conv, x, fast=True), gradients(conv, x, fast=True, again=True)):
        for a, b in zip(ours, expected, strict=True):
            assert a.dtype == b.dtype
            torch.testing.assert_close(a, b, atol=1e-2, rtol=1e-2)


def test_what_autocast_leaves_in_double_precision_and_one_image():
    conv = torch.nn.Conv2d(8, 8, 5, padding=2, groups=8)
    x = torch.randn(8, 9, 9, requires_grad=True)
    with torch.autocast('cpu', torch.bfloat16), FastDepthwise():
        y = conv(x)
        assert conv.double()(x.double()).dtype == torch.float64
    y.float().sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize('has', [True, False])
@pytest.mark.parametrize('enabled', [True, False, 'auto'])
def test_a_slow_cpu_trains_in_float32_if_asked(monkeypatch, has, enabled):
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: dict(avx2=True, amx_bf16=has))
    told = []
    monkeypatch.setattr(amp, 'print_log', lambda message, logger: told.append(message))
    model = torch.nn.Linear(4, 1)
    wrapper = BFloat16OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), enabled=enabled)
    wanted = has if enabled == 'auto' else enabled
    for _ in range(2):
        with wrapper.optim_context(model):
            assert model(torch.randn(8, 4)).dtype == (torch.bfloat16 if wanted else torch.float32)
    text = 'bfloat16: this cpu has' if has else 'float32: this cpu has no'
    assert told == [f'{text} instructions for bfloat16'] * (enabled == 'auto')


def test_another_word_for_enabled():
    optimizer = torch.optim.SGD(torch.nn.Linear(4, 1).parameters(), lr=0.1)
    with pytest.raises(ValueError, match="enabled must be True, False or 'auto', got 'yes'"):
        BFloat16OptimWrapper(optimizer, enabled='yes')


def test_depthwise_gradients_when_compiled():
    torch._dynamo.reset()
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(8, 8, 5, 1, 2, groups=8)
    x, results = torch.randn(2, 8, 17, 19), []
    for run in (conv, torch.compile(conv, fullgraph=True, backend='aot_eager')):
        conv.zero_grad()
        with torch.autocast('cpu', torch.bfloat16), FastDepthwise():
            y = run(x)
        y.float().square().sum().backward()
        results.append((y.detach(), conv.weight.grad.clone()))
    torch.testing.assert_close(*results)
