"""Scores by stream and ensemble, against sklearn-like counting written out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.logging import MMLogger

from mmcen.evaluation import StreamIoUMetric

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
        sample = {'gt_sem_seg': as_field(label), 'streams': {}}
        for name in names:
            prediction = np.where(rng.random((6, 8)) < 0.5, label % K, rng.integers(0, K, (6, 8)))
            predictions[name].append(prediction)
            own = {'pred_sem_seg': as_field(prediction)}
            if name:
                sample['streams'][name[:-1]] = own
            else:
                sample.update(own)
        if not streams:
            del sample['streams']
        metric.process({}, [sample])
    found = metric.evaluate(3)
    for name in names:
        expected = scores(np.concatenate(predictions[name]), np.concatenate(labels))
        for key, value in expected.items():
            assert found[name + key] == pytest.approx(value, abs=0.011)  # rounded to 0.01
    assert len(found) == 3 * len(names)


def test_files_are_the_ensembles(tmp_path):
    MMLogger.get_instance('metric', log_level='ERROR')
    metric = StreamIoUMetric(output_dir=str(tmp_path), format_only=True)
    metric.dataset_meta = {'classes': list('abcd')}
    ensemble, stream = np.full((2, 2), 3), np.full((2, 2), 1)
    sample = {
        'pred_sem_seg': as_field(ensemble),
        'streams': {'rgb': {'pred_sem_seg': as_field(stream)}},
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
        'pred_sem_seg': as_field(rng.integers(0, K, (6, 8))),
        'streams': {'rgb': {'pred_sem_seg': as_field(rng.integers(0, K, (6, 8)))}},
    }
    found = []
    for task, sample in (
        (None, own),
        ('segment_semantic', {'tasks': {'segment_semantic': own, 'normal': {}}}),
    ):
        metric = StreamIoUMetric(task=task)
        metric.dataset_meta = {'classes': list('abcd')}
        metric.process({}, [{'gt_sem_seg': label, **sample}])
        found.append(metric.evaluate(1))
    plain, of_task = found
    assert of_task == {f'segment_semantic/{key}': value for key, value in plain.items()}
    assert 'segment_semantic/rgb/mIoU' in of_task


@pytest.mark.parametrize('tasks', [{}, {'normal': {}}, {'labels': {'pred': 0}}])
def test_task_without_classes(tasks):
    metric = StreamIoUMetric(task='labels')
    with pytest.raises(ValueError, match="task 'labels' predicts no classes, the sample has"):
        metric.process({}, [{'tasks': tasks}])
