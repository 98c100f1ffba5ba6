"""Scores by stream and ensemble, against sklearn-like counting written out."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.logging import MMLogger
from mmseg.evaluation import IoUMetric

from mmcen.evaluation import StreamIoUMetric
from mmcen.models.label_map import label_map

K, VOID = 4, 255


def scores(prediction, label):
    """Mean IoU, mean accuracy and pixel accuracy in percent, by sets of pixels."""
    known = label != VOID
    ious, accuracies = [], []
    for k in range(K):
        p, t = (prediction == k) & known, (label == k) & known
        if (p | t).any():
            ious.append((p & t).sum() / (p | t).sum())
        if t.any():
            accuracies.append((p & t).sum() / t.sum())
    correct = (prediction == label)[known].mean()
    return {'mIoU': np.mean(ious) * 100, 'mAcc': np.mean(accuracies) * 100, 'aAcc': correct * 100}


def as_field(labels):
    return {'data': torch.from_numpy(labels)[None].long()}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 3))
def test_equals_counting(seed, streams):
    MMLogger.get_instance('metric', log_level='ERROR')
    rng = np.random.default_rng(seed)
    names = ['', *[f's{i}/' for i in range(streams)]]
    metric = StreamIoUMetric(iou_metrics=['mIoU'])
    metric.dataset_meta = {'classes': list('abcd')}
    labels, predictions = [], {name: [] for name in names}
    for _ in range(3):
        label = rng.integers(0, K, (6, 8))
        label[0, :3] = VOID
        labels.append(label)
        sample = {'gt_sem_seg': as_field(label)}
        outputs = {}
        for name in names:
            prediction = np.where(rng.random((6, 8)) < 0.5, label % K, rng.integers(0, K, (6, 8)))
            predictions[name].append(prediction)
            own = {'pred_sem_seg': as_field(prediction)}
            outputs[name[:-1] or 'ensemble'] = own
        # a stock model has no streams
        more = {'outputs': {'semseg': outputs}} if streams else outputs['ensemble']
        metric.process({}, [sample | more])
    found = metric.evaluate(3)
    for name in names:
        expected = scores(np.concatenate(predictions[name]), np.concatenate(labels))
        for key, value in expected.items():
            assert found[name + key] == pytest.approx(value, abs=0.011)  # rounded to 0.01
    assert len(found) == 3 * len(names)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 3, 40]), st.sampled_from([255, 0, 1]))
def test_counts_are_those_of_mmseg(seed, classes, ignored):
    """The same integers, of the same type, whatever the labels are."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(classes, (9, 11), generator=generator)
    prediction = torch.randint(classes, (9, 11), generator=generator)
    label[0, :5] = VOID
    if classes > 1:  # labels of no class
        label[1, :5], prediction[2, :5] = classes, -1
    kinds = [(prediction, label), (prediction.float(), label.float())]
    for pair in kinds if classes < 3 else kinds[:1]:
        found = StreamIoUMetric.intersect_and_union(*pair, classes, ignored)
        wanted = IoUMetric.intersect_and_union(*pair, classes, ignored)
        for mine, theirs in zip(found, wanted, strict=True):
            assert torch.equal(mine, theirs)
            assert mine.dtype == theirs.dtype


def test_nothing_is_known():
    label = torch.full((3, 4), VOID)
    counts = StreamIoUMetric.intersect_and_union(torch.zeros_like(label), label, K, VOID)
    assert not torch.stack(counts).any()


def test_real_frames_score_as_by_mmseg(data_root):
    """From coarse logits to scores, against interpolating twice, argmax and IoUMetric."""
    classes = {'classes': [str(k) for k in range(40)]}
    metrics = StreamIoUMetric(prefix='x'), IoUMetric(prefix='x')
    for metric in metrics:
        metric.dataset_meta = classes
    differ = 0
    for name in (data_root / 'splits' / 'test.txt').read_text().split()[:3]:
        mask = cv2.imread(str(data_root / 'masks' / f'{name}.png'), cv2.IMREAD_UNCHANGED)
        label = torch.from_numpy(mask).long() - 1
        label[label < 0] = VOID
        target = F.one_hot(label.clamp(max=40), 41)[None, ..., :40].permute(0, 3, 1, 2).float()
        coarse = F.interpolate(target, (40, 52), mode='area') + 0.2 * torch.randn(1, 40, 40, 52)
        logits = F.interpolate(coarse, (160, 208), mode='bilinear')
        plain = F.interpolate(logits, label.shape, mode='bilinear').argmax(1)
        found = label_map(logits[0], label.shape)[None]
        differ += (found != plain).sum()
        for metric, prediction in zip(metrics, (found, plain), strict=True):
            sample = {'gt_sem_seg': {'data': label[None]}, 'pred_sem_seg': {'data': prediction}}
            metric.process({}, [sample])
    assert differ <= 3  # pixels of equal logits
    assert metrics[0].evaluate(3) == metrics[1].evaluate(3)


def test_files_are_the_ensembles(tmp_path):
    MMLogger.get_instance('metric', log_level='ERROR')
    metric = StreamIoUMetric(output_dir=str(tmp_path), format_only=True)
    metric.dataset_meta = {'classes': list('abcd')}
    ensemble, stream = np.full((2, 2), 3), np.full((2, 2), 1)
    sample = {
        'outputs': {
            'semseg': {
                'ensemble': {'pred_sem_seg': as_field(ensemble)},
                'rgb': {'pred_sem_seg': as_field(stream)},
            }
        },
        'img_path': 'x/000001.jpg',
    }
    metric.process({}, [sample])
    metric.evaluate(1)
    from PIL import Image

    assert np.array_equal(np.array(Image.open(tmp_path / '000001.png')), ensemble)


def test_one_task_of_many():
    """Names get the task's, values are those of the same predictions without a task."""
    MMLogger.get_instance('metric', log_level='ERROR')
    rng = np.random.default_rng(1)
    label = as_field(rng.integers(0, K, (6, 8)))
    own = {
        name: {'pred_sem_seg': as_field(rng.integers(0, K, (6, 8)))} for name in ('ensemble', 'rgb')
    }
    found = []
    for task, outputs in (
        (None, {'semseg': own}),
        ('segment_semantic', {'segment_semantic': own, 'normal': {}}),
    ):
        metric = StreamIoUMetric(task=task)
        metric.dataset_meta = {'classes': list('abcd')}
        metric.process({}, [{'gt_sem_seg': label, 'outputs': outputs}])
        found.append(metric.evaluate(1))
    plain, of_task = found
    assert of_task == {f'segment_semantic/{key}': value for key, value in plain.items()}
    assert 'segment_semantic/rgb/mIoU' in of_task


@pytest.mark.parametrize('tasks', [{}, {'normal': {}}, {'labels': {'ensemble': {'pred': 0}}}])
def test_task_without_classes(tasks):
    metric = StreamIoUMetric(task='labels')
    with pytest.raises(ValueError, match="task 'labels' predicts no classes, the sample has"):
        metric.process({}, [{'outputs': tasks}])
