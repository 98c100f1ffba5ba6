"""CENMultiTask and CENDenseNetwork: mmseg's heads in lock step are mmseg's heads one by one."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

from mmcen.core import exchange_norms
from mmcen.layers import ExchangeNorm, PerTask
from tests.oracle import exchange
from tests.specs import task_list

TASKS = dict(segment_semantic=['rgb', 'depth'], normal=['rgb', 'depth'], edge=['rgb', 'depth'])
KEYS = dict(segment_semantic='loss_ce')
NORM = dict(type='BN')
FCN = dict(
    type='FCNHead',
    in_channels=32,
    in_index=2,
    channels=12,
    num_convs=2,
    concat_input=False,
    dropout_ratio=0,
    norm_cfg=NORM,
)
BACKBONE = dict(
    type='CENResNet',
    depth=18,
    base_channels=8,
    num_stages=3,
    strides=(1, 2, 2),
    dilations=(1, 1, 1),
    out_indices=(0, 1, 2),
)


def build(decode_head=FCN, tasks=TASKS, **kwargs):
    network = dict(type='CENDenseNetwork', backbone=BACKBONE, decode_head=decode_head)
    heads = dict(segment_semantic=dict(type='ClassHead', num_classes=5))
    model = MODELS.build(
        dict(type='CENMultiTask', tasks=task_list(tasks, heads), network=network | kwargs)
    )
    model.init_weights()
    return model


def batch(size=32):
    """Noise, of which the edges are the brighter half and the classes the fifths of the depth."""
    names = ['rgb', 'depth', 'normal']
    inputs = {name: [255 * torch.rand(3, size, size) for _ in range(2)] for name in names}
    for images in inputs.values():  # blocks, which features of stride 8 can show
        images[:] = [x[:, ::8, ::8].repeat_interleave(8, 1).repeat_interleave(8, 2) for x in images]
    inputs['edge'] = [255.0 * (x > 128) for x in inputs['rgb']]
    labels = [(x[:1] / 51.01).long() for x in inputs['depth']]
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    return {'inputs': inputs, 'data_samples': samples}


def shrink(model):
    with torch.no_grad():
        for _, norm in exchange_norms(model):
            norm.weight[torch.rand_like(norm.weight) < 0.5] *= 1e-3


def test_heads_in_lock_step_are_an_fcn_for_each_stream():
    """Two convs of each task's own, private norms, exchange along the tasks after each."""
    model = build().eval()
    network = model.network
    shrink(network.decode_head)
    norms = dict(exchange_norms(network.decode_head))
    assert len(norms) == 2
    assert all(norm.exchange_mask().any() and norm.axis == 'tasks' for norm in norms.values())
    features = torch.randn(2 * 6, 32, 8, 8)
    x = network.grid.unfold(features)
    x = [[x[:, t, m] for m in range(2)] for t in range(3)]
    for block in network.decode_head.convs:
        x = [[block.conv.copies[t](v) for v in row] for t, row in enumerate(x)]
        norm, shape = block.bn, (3, 2, 12)
        weight, bias = norm.weight.view(shape), norm.bias.view(shape)
        variance = 1 + norm.norm.eps  # running statistics are 0 and 1
        x = [
            [
                v * (weight[t, m] / variance**0.5).view(1, -1, 1, 1) + bias[t, m].view(1, -1, 1, 1)
                for m, v in enumerate(row)
            ]
            for t, row in enumerate(x)
        ]
        x = exchange(x, weight, 'tasks', norm.selection.threshold)
        x = [[v.relu() for v in row] for row in x]
    expected = [[network.classifiers.copies[t](v) for v in row] for t, row in enumerate(x)]
    outputs = network._together([None, None, features])
    for row, theirs in zip(outputs, expected, strict=True):
        torch.testing.assert_close(row, torch.stack(theirs, 1), rtol=1e-4, atol=1e-5)
    assert [row.shape[2] for row in outputs] == [5, 3, 3]


def test_without_exchange_lock_step_changes_nothing():
    """The same weights in separate heads, one after the other."""
    together = build(decoder=dict(after=None)).eval().network
    other = dict(FCN, channels=12, init_cfg=None)  # another config, hence not in lock step
    apart = build(decode_head=[FCN, other, FCN]).eval().network
    assert together.lock_step
    assert not apart.lock_step
    for t, head in enumerate(apart.decode_heads):
        head.conv_seg.load_state_dict(together.classifiers.copies[t].state_dict())
        for ours, theirs in zip(together.decode_head.convs, head.convs, strict=True):
            theirs.conv.load_state_dict(ours.conv.copies[t].state_dict())
    features = [None, None, torch.randn(12, 32, 8, 8)]
    apart_features = [torch.zeros(12, 1), torch.zeros(12, 1), features[2]]
    outputs = zip(together._together(features), apart._one_by_one(apart_features), strict=True)
    for ours, theirs in outputs:
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize('kind', ['PSPHead', 'ASPPHead', 'UPerHead', 'FCNHead'])
def test_heads_of_mmseg_exchange_between_tasks(kind):
    cfg = dict(type=kind, in_channels=32, in_index=2, channels=8, norm_cfg=NORM)
    if kind == 'ASPPHead':
        cfg |= dict(dilations=(1, 2))
    if kind == 'UPerHead':
        cfg |= dict(in_channels=[8, 16, 32], in_index=[0, 1, 2], pool_scales=(1, 2))
    model = build(cfg)
    convs = [m for m in model.network.decode_head.modules() if isinstance(m, nn.Conv2d)]
    owned = [m for m in model.network.decode_head.modules() if isinstance(m, PerTask)]
    assert len(convs) == 3 * len(owned) > 0
    shrink(model)
    outputs = model(model.data_preprocessor(batch())['inputs'])
    shapes = {task: tuple(row['ensemble'].shape) for task, row in outputs.items()}
    assert shapes['segment_semantic'] == (2, 5, 32, 32)
    assert shapes['edge'] == (2, 3, 32, 32)


def test_trains_and_predicts():
    model = build()
    wrapper = build_optim_wrapper(
        model, dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2))
    )
    data = batch()
    first = model.train_step(data, wrapper)
    assert set(first) == {'loss'} | {
        f'{task}.{name}.{KEYS.get(task, "loss_pixel")}'
        for task in TASKS
        for name in ('ensemble', 'rgb', 'depth')
    }
    for _ in range(40):
        last = model.train_step(data, wrapper)
    for task in TASKS:
        key = f'{task}.ensemble.{KEYS.get(task, "loss_pixel")}'
        assert last[key] < 0.9 * first[key]
    sample = model.eval().val_step(data)[0]
    image = sample.outputs.normal.ensemble.pred
    assert image.shape == (3, 32, 32)
    assert 0 <= image.min() <= image.max() <= 255
    torch.testing.assert_close(sample.targets.normal, data['inputs']['normal'][0])
    assert sample.outputs.segment_semantic.ensemble.pred_sem_seg.data.shape == (1, 32, 32)


def test_the_ensemble_trains_the_scores_alone():
    model = build()
    data = model.data_preprocessor(batch(), True)
    losses = model(**data, mode='loss')
    sum(value for name, value in losses.items() if '.ensemble.' in name).backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {
        'ensemble.alpha'
    }
    assert model.ensemble.alpha.grad.abs().min() > 0


def test_decode_heads_of_each_task():
    light = dict(FCN, num_convs=1)
    network = build([FCN, light, light]).network
    assert [len(head.convs) for head in network.decode_heads] == [2, 1, 1]
    assert not any(norm.axis == 'tasks' for _, norm in exchange_norms(network))


def test_heads_that_cannot_exchange():
    light = dict(FCN, num_convs=1)
    with pytest.raises(ValueError, match='different kinds run one after the other and cannot'):
        build([FCN, light, FCN], decoder=dict(after='every'))
    assert not build([FCN, light, FCN], decoder=dict(after=None)).network.lock_step
    refine = dict(type='RefineNetHead', in_channels=[8, 16, 32], in_index=[0, 1, 2])
    with pytest.raises(ValueError, match="no norm of RefineNetHead fits exchange='every'"):
        build(refine)
    assert build(refine, decoder=dict(after=None)).network.lock_step


def test_exchange_of_backbone_and_heads_is_chosen_apart():
    features = [torch.rand(1, 32, 8, 8)] * 3  # a head takes no frame
    decoder = dict(after='spatial', threshold=0.2, example=(features,))
    network = build(exchange=dict(threshold=0.1), decoder=decoder).network
    backbone, head = (dict(exchange_norms(p)) for p in (network.backbone, network.decode_head))
    assert len(backbone) == 12
    assert {(n.axis, n.selection.threshold) for n in backbone.values()} == {('modalities', 0.1)}
    assert list(head) == ['convs.0.bn', 'convs.1.bn']
    assert {(n.axis, n.selection.threshold) for n in head.values()} == {('tasks', 0.2)}
    grids = {id(m.grid) for m in network.modules() if isinstance(m, (ExchangeNorm, PerTask))}
    assert grids == {id(network.grid)}
    nowhere = build(exchange=dict(after=None), decoder=dict(after=None)).network
    assert not list(exchange_norms(nowhere))
    own = dict(BACKBONE, norm_cfg=dict(type='CENBN', exchange=False))
    assert {n.axis for _, n in exchange_norms(build(backbone=own).network)} == {'tasks'}
