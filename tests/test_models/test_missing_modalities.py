"""Any subset of the modalities: modality dropout in training, and prediction without some."""

import itertools

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmcen.budget import BudgetSchedule, ExchangeBudget
from mmcen.core import ExchangeNorm, exchange_norms
from mmcen.models.modality_dropout import ModalityDropout
from tests.optional import need_mmagic
from tests.training import load, run_training

STATS = dict(
    rgb=dict(mean=[120.0] * 3, std=[60.0] * 3),
    depth=dict(mean=[2.0], std=[2.0]),
    normal=dict(mean=[0.0] * 3, std=[1.0] * 3),
)


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')
    torch.manual_seed(0)


def build(*names, exchange=None, **kwargs):
    """A small segmentor whose streams differ, and whose norms exchange."""
    model = MODELS.build(
        ConfigDict(
            type='CENEncoderDecoder',
            data_preprocessor=dict(
                type='CENDataPreprocessor', modalities=[dict(name=n, **STATS[n]) for n in names]
            ),
            backbone=dict(type='CENResNet', depth=18, base_channels=8, norm_eval=False),
            decode_head=dict(
                type='FCNHead', in_channels=64, channels=8, num_convs=1, num_classes=5,
                concat_input=False, dropout_ratio=0.0, norm_cfg=dict(type='BN'),
            ),
            exchange=exchange or dict(threshold=0.3),
            test_cfg=dict(mode='whole'),
            **kwargs,
        )
    )  # fmt: skip
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, ExchangeNorm):
                module.norm.weight.uniform_(0.1, 1.5)
                module.norm.running_mean.normal_()
        model.ensemble.alpha.normal_()
    return model


def alone(model, name):
    """The network of one modality, with what belongs to its stream."""
    place = model.streams.index(name)
    one, state = build(name), {}
    norms = {n: m for n, m in model.named_modules() if isinstance(m, ExchangeNorm)}
    for key, value in one.state_dict().items():
        if key == 'stream_names':
            continue
        given, norm = model.state_dict()[key], norms.get(key.rpartition('.norm.')[0])
        if norm is not None and value.dim():
            given = given.view(-1, norm.num_features)[place]
        state[key] = given[:, place : place + 1] if key == 'ensemble.alpha' else given
    one.load_state_dict(state)
    return one


def batch(count=2, size=64):
    samples = []
    for _ in range(count):
        meta = dict(ori_shape=(size, size), img_shape=(size, size), pad_shape=(size, size))
        sample = SegDataSample(metainfo=dict(meta, img_path='x.png'))
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 5, (1, size, size)))
        samples.append(sample)
    return samples


@pytest.mark.parametrize(('count', 'p', 'least'), [(2, 0.3, 1), (3, 0.5, 2), (3, 0.5, 1)])
def test_subsets_are_drawn_as_often_as_stated(count, p, least):
    dropout = ModalityDropout(count, p, least)
    draws = [tuple(dropout.draw()) for _ in range(4000)]
    # by counting: which of independent modalities stay, and the highest that always do
    wanted = dict.fromkeys(draws, 0.0)
    for kept in itertools.product([True, False], repeat=count):
        chance = np.prod([1 - p if one else p for one in kept])
        own = [i for i in range(count) if kept[i]]
        rest = [i for i in range(count) if not kept[i]]
        more = list(itertools.combinations(rest, max(0, least - len(own))))
        for added in more:
            wanted[tuple(sorted([*own, *added]))] += chance / len(more)
    assert sum(wanted.values()) == pytest.approx(1)
    for subset, chance in wanted.items():
        assert draws.count(subset) / len(draws) == pytest.approx(chance, abs=0.035), subset


@pytest.mark.parametrize(
    ('given', 'sentence'),
    [
        (dict(p=1.0), 'p of modality_dropout must be from 0 to below 1, got 1.0'),
        (dict(p=0.3, keep_at_least=3), 'keep_at_least of modality_dropout must be 1 to 2.*got 3'),
    ],
)
def test_impossible_dropout_is_refused(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        build('rgb', 'depth', modality_dropout=given)


@pytest.mark.parametrize('exchange', [dict(threshold=0.6), dict(budget=0.3)])
def test_the_loss_is_that_of_the_network_of_the_present_modality(exchange):
    model = build('rgb', 'depth', exchange=exchange, modality_dropout=dict(p=0.9))
    inputs, samples = torch.randn(2, 6, 64, 64), batch()
    seen = set()
    while len(seen) < 2:
        networks = {name: alone(model, name) for name in model.streams}
        before = {key: value.clone() for key, value in model.state_dict().items()}
        losses = model.loss(inputs, samples)
        names = [name for name in model.streams if f'decode.{name}.loss_ce' in losses]
        if len(names) == 2:
            continue
        (name,) = names
        place = model.streams.index(name)
        wanted = networks[name].loss(inputs.unflatten(1, (2, 3))[:, place], samples)
        assert losses.keys() == wanted.keys()
        for key, value in wanted.items():
            torch.testing.assert_close(losses[key], value)
        model.parse_losses(losses)[0].backward()
        norm = model.backbone.bn1  # the other stream learns nothing and keeps its statistics
        width = norm.num_features
        absent = slice((1 - place) * width, (2 - place) * width)
        assert not norm.weight.grad[absent].any()
        after = model.state_dict()['backbone.bn1.norm.running_mean']
        assert torch.equal(after[absent], before['backbone.bn1.norm.running_mean'][absent])
        assert not torch.equal(after, before['backbone.bn1.norm.running_mean'])
        model.zero_grad()
        seen.add(name)
    assert model.grid.is_whole


def test_draws_go_on_from_a_checkpoint_and_checkpoints_fit_models_without():
    model = build('rgb', 'depth', modality_dropout=dict(p=0.5))
    for _ in range(3):
        model.modality_dropout.draw()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    goes_on = [model.modality_dropout.draw() for _ in range(20)]
    torch.manual_seed(5)
    resumed = build('rgb', 'depth', modality_dropout=dict(p=0.5))
    assert [resumed.modality_dropout.draw() for _ in range(20)] != goes_on  # another seed
    resumed.load_state_dict(state)
    assert [resumed.modality_dropout.draw() for _ in range(20)] == goes_on
    without = build('rgb', 'depth')
    without.load_state_dict(state)
    resumed.load_state_dict(without.state_dict())


def test_norms_of_their_own_where_a_modality_is_absent():
    whole = build('rgb', 'depth', 'normal')
    model = build('rgb', 'depth', 'normal', modality_dropout=dict(p=0.5, own_norms=True))
    model.load_state_dict(whole.state_dict())  # of both sets
    x, subsets = torch.randn(2, 9, 64, 64), [['rgb'], ['rgb', 'normal'], ['depth', 'normal']]
    with torch.no_grad():
        for one in (whole, model):
            one.eval()
        for present in (None, *subsets):
            given = x[:, : 3 * len(present or model.streams)]
            pairs = zip(
                *(one(given, present=present).values() for one in (whole, model)), strict=True
            )
            assert all(torch.equal(*pair) for pair in pairs)
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    outputs = model(x[:, :6], present=['rgb', 'normal'])
    sum(outputs[name].square().mean() for name in ('rgb', 'normal')).backward()
    for name, norm in model.named_modules():
        if isinstance(norm, ExchangeNorm):
            used = torch.tensor([0, 0, 0, 1, 0, 1], dtype=torch.bool)  # of both sets of streams
            gradient = norm.weight.grad.view(6, -1)
            assert not gradient[~used].any()
            now, then = norm.norm.running_mean.view(6, -1), before[f'{name}.norm.running_mean']
            assert ((now != then.view(6, -1)).any(1) == used).all()
    norm = model.backbone.bn1
    assert norm.gamma().shape == norm.exchange_mask().shape == (1, 3, 64)


def test_a_budget_learns_from_the_streams_that_are_present():
    """The effects of two of three streams are those of a network of these two."""
    model = build('rgb', 'depth', 'normal', exchange=dict(budget=0.3))
    schedule = BudgetSchedule(begin=0, end=1)
    budget = ExchangeBudget(model, criterion='gates', memory=1, schedule=schedule)
    budget.start()
    selections = [norm.selection for _, norm in exchange_norms(model)]
    inputs = torch.randn(2, 6, 64, 64)
    with model._of_present(inputs, [0, 2]) as own:
        losses = model.loss(own, batch())
    model.parse_losses(losses)[0].backward()  # the grid is whole again
    for selection in selections:
        for kept in (*selection.effects, selection.gates):
            assert not kept[0, 1].any()
            assert kept[0, [0, 2]].any(-1).all()


SEGMENTER = {
    'model.backbone.base_channels': 8,
    'model.decode_head': dict(in_channels=[8, 16, 32, 64], channels=8),
    'default_hooks.checkpoint': dict(save_best=None),
}
TRANSLATOR = {
    'model.network.base_channels': 8,
    'model.network.downs': 5,
    'model.discriminator.base_channels': 8,
}


@pytest.mark.parametrize(
    ('config', 'small'),
    [
        ('rooms_lwrefinenet_r18_budget.py', SEGMENTER),
        ('rooms_rgb-shade_to_normal.py', TRANSLATOR),
        ('rooms_rgb-depth_to_semseg-normal.py', TRANSLATOR),
        ('rooms_cycle_depth-normal-shade.py', TRANSLATOR),
    ],
    ids=['segmentation', 'translation', 'multitask', 'cycle'],
)
def test_a_resumed_training_draws_what_one_never_stopped_draws(tmp_path, config, small):
    if small is TRANSLATOR:
        need_mmagic()
    options = small | {
        'model.modality_dropout': dict(p=0.5),
        'train_dataloader.dataset': dict(length=4, size=(32, 64)),
        'val_dataloader.dataset': dict(length=1, size=(32, 64)),
        'train_cfg.max_epochs': 3,
        'default_hooks.checkpoint.max_keep_ckpts': -1,
        'custom_hooks': [dict(type='EpochSeedHook')],
    }
    run_training(config, tmp_path / 'whole', options)
    whole = load(tmp_path / 'whole/epoch_3.pth')['state_dict']
    resumed = {'resume': True, 'load_from': str(tmp_path / 'whole/epoch_1.pth')}
    run_training(config, tmp_path / 'again', options | resumed)
    again = load(tmp_path / 'again/epoch_3.pth')['state_dict']
    assert whole['modality_dropout.state'][1] == 6
    for key, value in whole.items():
        assert torch.equal(value, again[key]), key
