"""CENTranslator: a step against one written out stream by stream; flows, heads, errors."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmcen.models.translators import cen_translator
from tests.optional import need_mmagic
from tests.oracle_unet import ListUNet
from tests.specs import task_list

need_mmagic()

SETTINGS = {
    'fusion': dict(rgb=['normal', 'depth']),
    'cycle': dict(rgb=['normal', 'depth'], normal=['rgb', 'depth'], depth=['normal', 'rgb']),
    'multitask': dict(depth=['rgb'], normal=['rgb']),
    'multimodal_multitask': dict(edge=['rgb', 'depth'], normal=['rgb', 'depth']),
}
RATE = 0.05


def build(tasks, heads=None, **kwargs):
    cfg = dict(
        type='CENTranslator',
        tasks=task_list(tasks, heads),
        network=dict(type='CENUNetGenerator', downs=4, base_channels=6, dropout_ratio=0),
        head=dict(type='ImageHead', loss=dict(type='mmagic.L1Loss', loss_weight=100.0)),
        discriminator=dict(
            type='mmagic.PatchDiscriminator',
            in_channels=6,
            base_channels=4,
            norm_cfg=dict(type='IN'),
            init_cfg=dict(type='normal', gain=0.2),
        ),
        gan_loss=dict(type='mmagic.GANLoss', gan_type='vanilla'),
        data_preprocessor=dict(
            type='mmagic.DataPreprocessor', data_keys=None, stack_data_sample=False
        ),
    )
    model = MODELS.build(cfg | kwargs)
    model.discriminators.apply(lambda m: hasattr(m, 'init_weights') and m.init_weights())
    with torch.no_grad():
        for norm in model.modules():
            if hasattr(norm, 'exchange_mask'):
                gamma = 0.5 + torch.rand_like(norm.weight)
                norm.weight.copy_(torch.where(torch.rand_like(gamma) < 0.4, gamma * 5e-3, gamma))
    return model


def optimizers(model):
    sgd = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=RATE))
    return build_optim_wrapper(
        model,
        ConfigDict(
            constructor='mmagic.MultiOptimWrapperConstructor',
            network=sgd,
            discriminators=sgd,
            ensemble=sgd,
        ),
    )


def batch(model, size=32, extra=()):
    names = dict.fromkeys([*model.plan.domains, *model.tasks, *extra])
    return {name: [255 * torch.rand(3, size, size) for _ in range(2)] for name in names}


def step_by_hand(model, inputs):
    """The same step on copies: lists of streams, a discriminator call for every picture."""
    net, judges = ListUNet(model.network, True, True), deepcopy(model.discriminators.by_task)
    alpha = model.ensemble.alpha.detach().clone().requires_grad_()
    x = {name: torch.stack(images) / 127.5 - 1 for name, images in inputs.items()}
    raw = net([x[name] for name in model.plan.domains])
    fakes = {t: [y.tanh() for y in row] for t, row in zip(model.tasks, raw, strict=True)}
    log = {}

    def judge(task, m, image, real):
        logits = judges[task](torch.cat([x[model.tasks[task][m]], image], 1))
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))

    loss = 0
    for task, images in fakes.items():
        fake = [judge(task, m, image.detach(), False) for m, image in enumerate(images)]
        real = [judge(task, m, x[task], True) for m in range(len(images))]
        log[f'{task}.loss_d_fake'] = 0.5 * sum(fake)
        log[f'{task}.loss_d_real'] = 0.5 * sum(real)
        loss = loss + 0.5 * sum(fake) + 0.5 * sum(real)
    descend(judges, loss)
    loss = 0
    for t, (task, images) in enumerate(fakes.items()):
        gan = sum(judge(task, m, image, True) for m, image in enumerate(images))
        log[f'{task}.loss_gan'] = gan
        loss = loss + gan
        for name, image in zip(model.tasks[task], images, strict=True):
            log[f'{task}.{name}.loss_pixel'] = 100 * (image - x[task]).abs().mean()
            loss = loss + log[f'{task}.{name}.loss_pixel']
        mean = sum(score * y.detach() for score, y in zip(alpha[t].softmax(0), images, strict=True))
        log[f'{task}.ensemble.loss_pixel'] = 100 * (mean - x[task]).abs().mean()
    descend(net, loss)
    ensemble = sum(value for name, value in log.items() if '.ensemble.' in name)
    (gradient,) = torch.autograd.grad(ensemble, alpha)
    log |= {'loss': loss, 'loss_ensemble': ensemble}
    return net, judges, alpha - RATE * gradient, log


def descend(module, loss):
    parameters = [p for p in module.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter -= RATE * gradient


def near(ours, theirs, **kwargs):
    """The model takes outputs to float32 for its losses."""
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, check_dtype=False, **kwargs)


@pytest.mark.parametrize('setting', SETTINGS)
def test_a_step_is_the_one_written_out(setting):
    """Losses by name, and every parameter after the step, in all four settings."""
    torch.set_default_dtype(torch.float64)
    try:
        model = build(SETTINGS[setting])
        inputs = batch(model)
        net, judges, alpha, log = step_by_hand(model, inputs)
        ours = model.train_step({'inputs': dict(inputs)}, optimizers(model))
    finally:
        torch.set_default_dtype(torch.float32)
    ours.pop('loss_d')
    assert ours.keys() == log.keys()
    for name, value in log.items():
        near(torch.as_tensor(ours[name]), value.detach(), msg=name)
    near(model.ensemble.alpha, alpha)
    for mine, theirs in zip(
        model.discriminators.by_task.parameters(), judges.parameters(), strict=True
    ):
        near(mine, theirs)
    for mine, convs in zip(
        [*model.network.down_convs, *model.network.up_convs, model.network.output],
        [*net.downs, *net.ups, net.last],
        strict=True,
    ):
        for t, group in enumerate(mine.groups):
            near(mine.copies[group].weight, convs[t].weight)
    for mine, norms in zip(model.network.down_norms[1:-1], net.down_norms[1:-1], strict=True):
        gammas = torch.cat([norm.weight for row in norms for norm in row])
        near(mine.weight, gammas)


def test_random_flow_trains_one_task_a_step():
    model = build(SETTINGS['cycle'], train_cfg=dict(flow='random'))
    wrappers = optimizers(model)
    before = deepcopy(model.network.output.state_dict())
    chosen = []
    for step in range(12):
        MessageHub.get_current_instance().update_info('iter', step)
        log = model.train_step({'inputs': batch(model)}, wrappers)
        tasks = {name.split('.')[0] for name in log if '.' in name}
        assert len(tasks) == 1
        chosen += tasks
        after = model.network.output.state_dict()
        changed = {name.split('.')[1] for name in after if not before[name].equal(after[name])}
        assert changed == {str(list(model.tasks).index(*tasks))}
        before = deepcopy(after)
    assert set(chosen) == set(model.tasks)


def test_class_head_beside_an_image():
    """A class head has labels, cross entropy and no discriminator; both share the grid."""
    tasks = dict(segment_semantic=['rgb', 'depth'], normal=['rgb', 'depth'])
    heads = dict(segment_semantic=dict(type='ClassHead', num_classes=5))
    model = build(tasks, heads=heads)
    assert list(model.discriminators.by_task) == ['normal']
    samples = [SegDataSample(gt_sem_seg=PixelData(data=torch.full((1, 32, 32), 3)))] * 2
    samples[1].gt_sem_seg.data[:, :8] = 255
    data = {'inputs': batch(model), 'data_samples': samples}
    first = model.train_step(deepcopy(data), wrappers := optimizers(model))
    for _ in range(10):
        last = model.train_step(deepcopy(data), wrappers)
    for name in ('rgb', 'depth'):
        key = f'segment_semantic.{name}.loss_ce'
        assert last[key] < 0.5 * first[key]
    model.eval()
    sample = model.val_step(deepcopy(data))[0]
    classes = sample.outputs.segment_semantic
    assert (classes.ensemble.pred_sem_seg.data == 3).float().mean() > 0.9
    assert classes.rgb.pred_sem_seg.data.shape == (1, 32, 32)
    assert sample.targets.keys() == ['normal']
    torch.testing.assert_close(sample.targets.normal, data['inputs']['normal'][0])


@pytest.mark.parametrize('streams', [True, False])
def test_predictions(streams):
    model = build(SETTINGS['fusion'], test_cfg=dict(streams=streams)).eval()
    inputs = batch(model)
    sample = model.test_step({'inputs': dict(inputs)})[1]
    outputs = model({n: torch.stack(v) / 127.5 - 1 for n, v in inputs.items()})['rgb']
    names = ['ensemble', 'normal', 'depth'] if streams else ['ensemble']
    assert sample.outputs.rgb.keys() == names
    for name in names:
        found = sample.outputs.rgb.get(name).pred
        torch.testing.assert_close(found, (outputs[name][1] + 1) * 127.5)


@pytest.mark.parametrize('dropout', [True, False])
def test_dropout_at_test_is_a_choice(dropout):
    network = dict(type='CENUNetGenerator', downs=4, base_channels=6)
    model = build(SETTINGS['fusion'], network=network, test_cfg=dict(dropout=dropout)).eval()
    inputs = batch(model)
    one, two = (
        model.test_step({'inputs': dict(inputs)})[0].outputs.rgb.ensemble.pred for _ in range(2)
    )
    assert one.equal(two) != dropout
    assert not any(layer.training for layer in model.modules())


TASKS = [
    ({}, 'there is no task: give each target its inputs'),
    (dict(rgb=['depth', 'rgb']), "target 'rgb' is also one of its inputs"),
    (dict(rgb=['depth'], normal=['rgb', 'depth']), 'different numbers of inputs'),
    (dict(rgb='depth'), "task 'rgb' has inputs 'depth': give a list"),
    (dict(rgb=['depth', 'depth']), "input of task 'rgb' 'depth' is listed twice in"),
    (dict(rgb=['ensemble']), "input of task 'rgb' 'ensemble' cannot be used as a name"),
    ({'a.b': ['rgb']}, "task 'a.b' cannot be used as a name"),
]


@pytest.mark.parametrize(('tasks', 'text'), TASKS, ids=[text for _, text in TASKS])
def test_tasks_that_are_no_grid(tasks, text):
    with pytest.raises(ValueError, match=text):
        build(tasks)


@pytest.mark.parametrize(
    ('tasks', 'error', 'text'),
    [
        (dict(rgb=['depth']), TypeError, 'tasks is a dict, .*: give a list, whose order is'),
        ([dict(inputs=['depth'])], TypeError, 'a task is .*: give a dict with a name and inputs'),
        ([dict(name='rgb', input=['a'])], ValueError, r"'input' \(did you mean 'inputs'\?\)"),
        ([dict(name='rgb', inputs=['a'])] * 2, ValueError, "task 'rgb' is listed twice"),
    ],
)
def test_what_is_no_list_of_tasks(tasks, error, text):
    with pytest.raises(error, match=text):
        MODELS.build(dict(type='CENMultiTask', tasks=tasks, network=dict(type='CENUNetGenerator')))


def test_batches_that_lack_a_domain():
    model = build(SETTINGS['fusion'])
    inputs = batch(model)
    without = {k: v for k, v in inputs.items() if k != 'depth'}
    with pytest.raises(ValueError, match=r"inputs \['depth'\] are missing, the batch has"):
        model.train_step({'inputs': without}, optimizers(model))
    without = {k: v for k, v in inputs.items() if k != 'rgb'}
    with pytest.raises(ValueError, match="target 'rgb' is missing, the batch has"):
        model.train_step({'inputs': without}, optimizers(model))


def test_class_head_without_labels():
    heads = dict(a=dict(type='ClassHead', num_classes=2))
    model = build(dict(a=['rgb'], b=['rgb']), heads=heads)
    with pytest.raises(ValueError, match="task 'a' has no labels: a ClassHead needs"):
        model.train_step({'inputs': batch(model)}, optimizers(model))


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match='none of the tasks .* is an image .*: use CENMultiTask'):
        build(dict(a=['rgb']), heads=dict(a=dict(type='ClassHead', num_classes=2)))
    with pytest.raises(ValueError, match="flow must be one of .*, got 'any'"):
        build(SETTINGS['cycle'], train_cfg=dict(flow='any'))


def test_without_mmagic(monkeypatch):
    monkeypatch.setattr(cen_translator, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match='needs mmagic, which is not installed: pip install'):
        build(SETTINGS['fusion'])
