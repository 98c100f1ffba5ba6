"""Losses of a head: values and gradients equal mmseg's over layouts, types, weights and labels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.structures import SegDataSample
from torch.testing import assert_close

from mmcen.compat import installed_versions, is_upstream
from mmcen.models import losses as losses_module
from mmcen.models.losses import loss_of_classes, losses_of_head, resized_cross_entropy

IGNORE = 255
LAYOUTS = [torch.contiguous_format, torch.channels_last]
pytestmark = pytest.mark.filterwarnings('ignore:Default ``avg_non_ignore``')


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')
    torch.manual_seed(0)


def head(classes=5, ignore_index=IGNORE, align_corners=False, kind=FCNHead, **loss):
    return kind(
        in_channels=3,
        channels=4,
        num_convs=1,
        num_classes=classes,
        ignore_index=ignore_index,
        align_corners=align_corners,
        loss_decode={'type': 'CrossEntropyLoss', **loss},
    )


def samples(label):
    return [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in label]


def labels(classes, *shape, ignored=0.2, ignore_index=IGNORE):
    label = torch.randint(0, classes, shape)
    return label.masked_fill(torch.rand(shape) < ignored, ignore_index)


def same(head, logits, label, factor=3.0, rtol=1e-5, **tolerance):
    """Compare losses, accuracy and gradient of the stock path and ours; returns ours."""
    result = []
    for function in (head.loss_by_feat, lambda *x: losses_of_head(head, *x)):
        leaf = logits.detach().requires_grad_()
        losses = function(leaf, samples(label))
        (factor * losses['loss_ce']).backward()
        result.append((losses, leaf.grad))
    (stock, stock_grad), (ours, grad) = result
    assert list(ours) == list(stock)
    assert ours['acc_seg'].shape == stock['acc_seg'].shape
    tolerance.setdefault('atol', 1e-7)
    assert_close(ours, stock, rtol=rtol, atol=1e-6, check_dtype=False)
    # relative to the largest: single entries may cancel
    largest = stock_grad.abs().max().clamp_min(1e-30)
    assert_close(grad / largest, stock_grad / largest, rtol=rtol, **tolerance)
    assert grad.dtype == logits.dtype
    return ours, grad


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('classes', [2, 5, 8, 13])
@pytest.mark.parametrize('avg_non_ignore', [True, False])
def test_equals_mmseg(classes, layout, avg_non_ignore):
    logits = torch.randn(3, classes, 5, 7).contiguous(memory_format=layout) * 4
    _, grad = same(
        head(classes, avg_non_ignore=avg_non_ignore, loss_weight=0.4),
        logits,
        labels(classes, 3, 20, 28),
    )
    assert grad.is_contiguous(memory_format=layout)


@pytest.mark.skipif(
    not is_upstream(installed_versions(), 'mmseg'),
    reason='the OneDL mmseg divides by other weights, and fails with avg_non_ignore',
)
@pytest.mark.parametrize('classes', [3, 9])
@pytest.mark.parametrize('avg_non_ignore', [True, False])
def test_class_weight_equals_mmseg(classes, avg_non_ignore):
    """mmseg takes class weights only where the ignored label is a class or does not occur."""
    loss = {
        'avg_non_ignore': avg_non_ignore,
        'class_weight': torch.linspace(0.5, 2, classes).tolist(),
    }
    logits = torch.randn(2, classes, 4, 4)
    same(head(classes, **loss), logits, labels(classes, 2, 9, 11, ignored=0))
    same(head(classes, ignore_index=1, **loss), logits, labels(classes, 2, 9, 11, ignored=0))


def test_class_weight_with_ignored_labels():
    """The ignored pixels count nothing: the weighted mean of torch."""
    weight, logits, label = (
        torch.tensor([1.0, 2.0, 4.0]),
        torch.randn(2, 3, 6, 6),
        labels(3, 2, 6, 6),
    )
    expected = torch.nn.functional.cross_entropy(logits, label, weight, ignore_index=IGNORE)
    for avg_non_ignore in (True, False):
        loss, _ = resized_cross_entropy(
            logits, label, class_weight=weight, avg_non_ignore=avg_non_ignore
        )
        assert_close(loss, expected)


@pytest.mark.parametrize('classes', [4, 12])
@pytest.mark.parametrize('avg_non_ignore', [True, False])
def test_no_valid_pixel(classes, avg_non_ignore):
    label = torch.full((2, 8, 8), IGNORE)
    ours, grad = same(
        head(classes, avg_non_ignore=avg_non_ignore), torch.randn(2, classes, 4, 4), label
    )
    assert ours['loss_ce'] == 0
    assert not grad.any()


@pytest.mark.parametrize('classes', [4, 12])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_size_of_the_label(classes, layout):
    logits = torch.randn(2, classes, 6, 9).contiguous(memory_format=layout)
    same(head(classes), logits, labels(classes, 2, 6, 9))


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    classes=st.integers(2, 11),
    small=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    large=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    layout=st.sampled_from(LAYOUTS),
    align_corners=st.booleans(),
    avg_non_ignore=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_any_shape(batch, classes, small, large, layout, align_corners, avg_non_ignore, seed):
    """In double precision, because the gradients of a pixel's labels may nearly cancel."""
    torch.manual_seed(seed)
    logits = torch.randn(batch, classes, *small, dtype=torch.float64)
    same(
        head(classes, align_corners=align_corners, avg_non_ignore=avg_non_ignore),
        logits.contiguous(memory_format=layout),
        labels(classes, batch, *large),
        rtol=1e-6,
        atol=1e-9,
    )


@pytest.mark.parametrize('classes', [3, 9])
@pytest.mark.parametrize('sizes', [((3, 4), (7, 10)), ((4, 4), (4, 4))])
def test_gradcheck(classes, sizes):
    logits = torch.randn(2, classes, *sizes[0], dtype=torch.float64, requires_grad=True)
    label = labels(classes, 2, 1, *sizes[1])
    assert torch.autograd.gradcheck(lambda x: resized_cross_entropy(x, label)[0], logits)


@pytest.mark.parametrize('classes', [3, 9])
def test_extreme_logits(classes):
    """Probabilities that underflow have the losses of log-softmax."""
    logits = torch.randn(2, classes, 4, 4) * 1000
    ours, _ = same(head(classes), logits, labels(classes, 2, 8, 8))
    assert 100 < ours['loss_ce'] < torch.inf


def test_nan_is_not_hidden():
    logits = torch.randn(1, 9, 4, 4)
    logits[0, 0, 0, 0] = torch.nan
    loss, accuracy = resized_cross_entropy(logits, torch.zeros(1, 8, 8, dtype=torch.long))
    assert loss.isnan()
    assert accuracy < 100


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('classes', [3, 9])
def test_half_precision(classes, dtype):
    """Computed in float32: equal to the stock path on the same values in float32."""
    logits = torch.randn(2, classes, 4, 4).to(dtype).requires_grad_()
    exact, label = logits.detach().float().requires_grad_(), labels(classes, 2, 8, 8)
    with torch.autocast('cpu', dtype):
        losses = losses_of_head(head(classes), logits, samples(label))
    expected = head(classes).loss_by_feat(exact, samples(label))
    assert_close(losses, expected)
    # a loss scaler's factor is applied before the gradient is rounded
    (losses['loss_ce'] * 2.0**12).backward()
    (expected['loss_ce'] * 2.0**12).backward()
    assert logits.grad.dtype == dtype
    assert_close(logits.grad, exact.grad.to(dtype), rtol=1e-2, atol=1e-3)


def test_gradient_accumulates():
    logits = torch.randn(2, 9, 4, 4, requires_grad=True)
    label = labels(9, 2, 8, 8)
    loss, accuracy = resized_cross_entropy(logits, label)
    assert loss.requires_grad
    assert not accuracy.requires_grad
    loss.backward(retain_graph=True)
    once = logits.grad.clone()
    (2 * loss).backward()
    assert_close(logits.grad, 3 * once)


def test_a_stream_of_a_folded_batch():
    """Logits that are a view with gaps, as the segmentor hands them over."""
    folded = torch.randn(4, 9, 4, 4).contiguous(memory_format=torch.channels_last)
    stream, label = folded.unflatten(0, (2, 2))[:, 1], labels(9, 2, 8, 8)
    same(head(9), stream, label)
    stream.requires_grad_()
    (grad,) = torch.autograd.grad(resized_cross_entropy(stream, label)[0], stream)
    assert grad.is_contiguous(memory_format=torch.channels_last)


def test_no_gradient_is_computed_without_need(monkeypatch):
    monkeypatch.setattr(losses_module, '_upsample_adjoint', None)
    logits, label = torch.randn(1, 9, 4, 4), labels(9, 1, 8, 8)
    loss, _ = resized_cross_entropy(logits, label)
    assert not loss.requires_grad
    with torch.no_grad():
        assert_close(resized_cross_entropy(logits.requires_grad_(), label)[0], loss)


@pytest.mark.parametrize('value', [-1, 9])
def test_a_label_that_is_no_class(value):
    with pytest.raises(ValueError, match=rf'label {value} is not in 0..8: set num_classes'):
        resized_cross_entropy(torch.randn(1, 9, 4, 4), torch.full((1, 8, 8), value))


class OwnLoss(FCNHead):
    """Stock losses, by a method of its own."""

    def loss_by_feat(self, seg_logits, batch_data_samples):
        return super().loss_by_feat(seg_logits, batch_data_samples)


class OwnCrossEntropy(CrossEntropyLoss):
    pass


@pytest.fixture
def calls(monkeypatch):
    """Calls of the fast function."""
    calls = []

    def counted(*args, **kwargs):
        calls.append(args)
        return resized_cross_entropy(*args, **kwargs)

    monkeypatch.setattr(losses_module, 'resized_cross_entropy', counted)
    return calls


class Sampler:
    def sample(self, logits, label):
        return torch.full((len(label), *label.shape[2:]), 0.5)


def test_only_stock_losses_are_replaced(calls):
    logits, label = torch.randn(2, 5, 4, 4), labels(5, 2, 8, 8, ignored=0)
    same(head(class_weight=[1.0] * 5), logits, label)
    assert len(calls) == 1
    for loss in ({'use_sigmoid': True}, {'reduction': 'sum'}):
        same(head(**loss), logits, label)
    same(head(kind=OwnLoss), logits, label)
    for change in (
        {'loss_decode': OwnCrossEntropy()},
        {'loss_decode': torch.nn.ModuleList([CrossEntropyLoss(), CrossEntropyLoss()])},
        {'sampler': Sampler()},
        {'loss_by_feat': OwnLoss.loss_by_feat.__get__(head(kind=OwnLoss))},
    ):
        changed = head()
        for name, value in change.items():
            setattr(changed, name, value)
        same(changed, logits, label)
    assert len(calls) == 1


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('classes', [3, 9])
def test_loss_of_a_class_head(calls, classes, layout):
    x = torch.randn(2, classes, 6, 6).contiguous(memory_format=layout)
    criterion, label = CrossEntropyLoss(loss_weight=0.3), labels(classes, 2, 6, 6)
    grads = []
    for loss in (
        lambda x: criterion(x, label, ignore_index=IGNORE),
        lambda x: loss_of_classes(criterion, x, label, IGNORE),
    ):
        leaf = x.detach().requires_grad_()
        value = loss(leaf)
        value.backward()
        grads.append((value, leaf.grad))
    assert_close(*grads)
    assert len(calls) == 1
    # a wrong size is an error, not a reason to resize
    with pytest.raises(RuntimeError, match='size'):
        loss_of_classes(criterion, x[..., :4], label, IGNORE)


def segmentor(kind):
    norm = {'type': 'CENBN', 'threshold': 2e-2}
    fcn = {
        'type': kind,
        'in_channels': 512,
        'in_index': 3,
        'channels': 8,
        'num_convs': 1,
        'concat_input': False,
        'num_classes': 9,
        'norm_cfg': norm,
        'dropout_ratio': 0,
    }
    stats = {'mean': [0.0] * 3, 'std': [1.0] * 3}
    torch.manual_seed(0)
    return MODELS.build(
        {
            'type': 'CENEncoderDecoder',
            'data_preprocessor': {
                'type': 'CENDataPreprocessor',
                'modalities': [{'name': 'rgb', **stats}, {'name': 'normal', **stats}],
            },
            'backbone': {'type': 'CENResNet', 'depth': 18, 'norm_cfg': norm, 'norm_eval': False},
            'decode_head': fcn,
            'auxiliary_head': {
                **fcn,
                'loss_decode': {'type': 'CrossEntropyLoss', 'loss_weight': 0.4},
            },
            'train_cfg': {},
            'test_cfg': {'mode': 'whole'},
        }
    )


def test_training_of_a_segmentor(calls):
    inputs, label = torch.randn(2, 6, 64, 64), labels(9, 2, 64, 64)
    steps = []
    for kind in (FCNHead, OwnLoss):
        model = segmentor(kind)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        steps.append([])
        for _ in range(3):
            losses = model.loss(inputs, samples(label))
            optimizer.zero_grad()
            sum(value for name, value in losses.items() if '.loss' in name).backward()
            optimizer.step()
            steps[-1].append(losses)
        steps[-1].append({'alpha': model.ensemble.alpha})
    assert len(calls) == 3 * 5  # ensemble and two streams; two streams of the auxiliary head
    for ours, stock in zip(*steps, strict=True):
        assert_close(ours, stock, rtol=1e-5, atol=1e-5)
