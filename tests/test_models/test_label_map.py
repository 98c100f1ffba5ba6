"""Labels without logits at full size: those of interpolating, then taking the largest logit."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcen.models.label_map import label_map

TIE = 1e-5  # logits that differ by less are equal up to rounding


def assert_most_likely(labels, logits, size, align_corners):
    """Every label is the class of the largest resized logit, or of one equal to it."""
    resized = F.interpolate(logits[None], size, mode='bilinear', align_corners=align_corners)[0]
    assert labels.shape == tuple(size)
    assert labels.dtype == torch.int64
    chosen = resized.gather(0, labels[None])[0]
    assert (chosen >= resized.amax(0) - TIE).all()
    assert (labels == resized.argmax(0)).float().mean() > 0.999


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    classes=st.sampled_from([1, 2, 3, 40]),
    source=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    target=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    smooth=st.booleans(),
    align_corners=st.booleans(),
)
def test_equals_interpolation_and_argmax(seed, classes, source, target, smooth, align_corners):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(classes, *source, generator=generator)
    if smooth:  # large areas of one class
        coarse = torch.randn(1, classes, 3, 3, generator=generator)
        logits = F.interpolate(coarse, source, mode='bilinear')[0]
    labels = label_map(logits, target, align_corners)
    assert_most_likely(labels, logits, target, align_corners)


def test_more_pixels_than_a_chunk():
    torch.manual_seed(0)
    logits = torch.randn(5, 60, 80)
    assert_most_likely(label_map(logits, (180, 240)), logits, (180, 240), False)


def test_a_class_that_is_second_everywhere_may_win_between():
    """Neighbours that differ say nothing about the classes between them."""
    logits = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[0.9, 0.9]]])
    assert label_map(logits, (1, 6)).tolist() == [[0, 0, 2, 2, 1, 1]]


def test_equal_logits_give_the_first_class():
    assert not label_map(torch.zeros(4, 5, 6), (15, 18)).any()


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16, torch.bfloat16])
def test_other_types(dtype):
    torch.manual_seed(0)
    logits = torch.randn(3, 8, 8).to(dtype).requires_grad_()
    expected = F.interpolate(logits[None], (24, 24), mode='bilinear')[0].argmax(0)
    assert (label_map(logits, (24, 24)) == expected).all()
