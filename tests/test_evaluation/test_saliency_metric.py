"""MAE and F-measures of saliency against counting written out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcen.evaluation import SaliencyMetric


def count(saliency, mask):
    """MAE, and the F-measure at thresholds 0 to 255, pixel by pixel."""
    curve = []
    for threshold in range(256):
        found = np.floor(saliency * 255) >= threshold
        right = (found & (mask == 1)).sum()
        precision = right / found.sum() if found.any() else 0
        recall = right / mask.sum() if mask.any() else 0
        bottom = 0.3 * precision + recall
        curve.append(1.3 * precision * recall / bottom if bottom else 0)
    return np.abs(saliency - mask).sum() / mask.size, np.array(curve)


def sample_of(saliency, mask, **more):
    def field(values):
        return {'data': torch.from_numpy(values)[None]}

    sample = {'gt_sem_seg': field(mask), 'img_path': 'a.png'}
    outputs = {k or 'ensemble': {'seg_logits': field(v)} for k, v in saliency.items()}
    return sample | {'outputs': {'semseg': outputs}} | more


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.booleans())
def test_equals_counting(seed, stretch, named):
    rng = np.random.default_rng(seed)
    metric = SaliencyMetric(stretch=stretch)
    expected = {}
    for frame in range(4):
        mask = (rng.random((6, 8)) < rng.choice([0.0, 0.3])).astype(np.int64)
        maps = {name: rng.random((6, 8)) * 0.9 for name in ('', 'rgb', 'depth')}
        pseudo = rng.random((6, 8))
        name = 'ab'[frame % 2]
        more = {'pseudo_label': pseudo} | ({'dataset': name} if named else {})
        metric.process(None, [sample_of(maps, mask, **more)])
        for key, values in {**maps, 'pseudo': pseudo}.items():
            if stretch:
                values = (values - values.min()) / (values.max() - values.min())
            where = [name] * named + [key] * bool(key)
            expected.setdefault(''.join(f'{part}/' for part in where), []).append(
                count(values, mask)
            )
    metrics = metric.evaluate(4)
    assert len(metrics) == 3 * len(expected) == 12 * (1 + named)
    for prefix, figures in expected.items():
        errors, curves = zip(*figures, strict=True)
        assert metrics[f'{prefix}MAE'] == pytest.approx(np.mean(errors))
        assert metrics[f'{prefix}maxF'] == pytest.approx(np.mean(curves, 0).max())
        assert metrics[f'{prefix}meanF'] == pytest.approx(np.mean(curves))


def test_perfect_and_none():
    metric = SaliencyMetric()
    mask = np.eye(5, dtype=np.int64)
    metric.process(None, [sample_of({'': mask.astype(float), 'rgb': np.zeros((5, 5))}, mask)])
    metrics = metric.evaluate(1)
    assert metrics['MAE'] == 0
    assert metrics['maxF'] == 1
    assert metrics['rgb/MAE'] == pytest.approx(5 / 25)


def test_wrong_masks():
    maps = {'': np.zeros((2, 2))}
    with pytest.raises(ValueError, match=r'a.png has a mask of values up to 255, but 0 is'):
        SaliencyMetric().process(None, [sample_of(maps, np.full((2, 2), 255))])
    sample = sample_of(maps, np.zeros((2, 2)))
    del sample['gt_sem_seg']
    with pytest.raises(ValueError, match='a.png has no mask to measure by'):
        SaliencyMetric().process(None, [sample])
