"""Outputs keep their order on every way that mmengine takes them."""

import pickle

import torch
from mmengine.structures import BaseDataElement, PixelData
from mmseg.structures import SegDataSample

from mmcen.outputs import ByName, fields_of, flatten, outputs_of

TASKS = {'semseg': ['ensemble', 'rgb', 'depth'], 'normal': ['ensemble', 'thermal', 'area', 'b']}


def sample():
    made = SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, 2, 2)))
    tasks = {
        task: {name: BaseDataElement(pred=torch.rand(2)) for name in names}
        for task, names in TASKS.items()
    }
    made.set_data({'outputs': outputs_of(tasks)})
    return made


def order(outputs):
    return {task: list(own.keys()) for task, own in outputs.items()}


def test_the_order_stays():
    ours = sample()
    for moved in (
        ours,
        ours.cpu(),
        ours.to('cpu'),
        ours.detach(),
        ours.clone(),
        ours.new(),
        pickle.loads(pickle.dumps(ours)),
    ):
        assert order(moved.outputs) == TASKS
        assert list(order(moved.outputs)) == list(TASKS)
        assert torch.equal(moved.outputs.normal.area.pred, ours.outputs.normal.area.pred)
    assert order(ours.to_dict()['outputs']) == TASKS
    assert list(ours.to_dict()['outputs']['semseg']) == TASKS['semseg']


def test_flat_names():
    flat = ['ensemble', 'rgb', 'depth', *(f'normal/{name}' for name in TASKS['normal'])]
    assert list(flatten(dict(sample().outputs.items()))) == flat


def test_fields_that_are_there():
    own = BaseDataElement(pred=1, other=2)
    assert fields_of(own, ['pred', 'seg_logits']).keys() == ['pred']
    assert ByName().keys() == []
