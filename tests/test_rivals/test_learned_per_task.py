"""Learned sharing: against layers with fixed groups, gradients by hand, turns, a whole training."""

import re
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper, OptimWrapperDict, build_optim_wrapper
from mmengine.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

from mmcen.core import exchange_norms
from mmcen.core.grid import StreamGrid
from mmcen.layers import PerTask
from mmcen.models.generators.cen_unet import UpConv
from projects.paper.rivals import PolicyHook
from projects.paper.rivals.learned_per_task import LearnedPerTask, SharingPolicy, find_policy
from projects.paper.rivals.turns import update_in_turn
from tests.optional import need_mmagic
from tests.specs import task_list

LEARNED = dict(type='AdaShareUNet', copies=2, norm_cfg=dict(type='CENIN', threshold=1e-2))
SMALL = dict(downs=4, base_channels=6, dropout_ratio=0)
NORM = dict(type='IN2d', affine=True)
PLAIN = dict(type='CENUNetGenerator', norm_cfg=LEARNED['norm_cfg'])
THREE = [[0], [0], [0]]


def choose(policy, layer, groups, by=8.0):
    """Make a choice as good as certain."""
    with torch.no_grad():
        policy.logits[layer] = by * nn.functional.one_hot(
            torch.tensor(groups), policy.logits.shape[-1]
        )


def pair(groups, kind=nn.Conv2d, copies=2, modalities=2):
    """A learned layer that chose ``groups``, and the plain layer of the same weights."""
    grid = StreamGrid(len(groups), modalities)
    policy = SharingPolicy(3, len(groups), copies)
    learned = LearnedPerTask(lambda: kind(3, 4, 4, 2, 1), grid, policy, 1)
    choose(policy, 1, groups, by=1e3)
    used = sorted(set(groups))
    plain = PerTask(lambda: kind(3, 4, 4, 2, 1), grid, [used.index(g) for g in groups])
    for mine, number in zip(plain.copies, used, strict=True):
        mine.load_state_dict(learned.copies[number].state_dict())
    return policy, learned, plain


@pytest.mark.parametrize('kind', [nn.Conv2d, UpConv])
@settings(max_examples=20, deadline=None)
@given(
    groups=st.integers(2, 4).flatmap(lambda t: st.lists(st.integers(0, 1), min_size=t, max_size=t))
)
def test_a_hard_choice_is_the_plain_layer(kind, groups):
    """Also where a copy is used by no task. In evaluation to the bit; in training, where tasks run
    one by one, outputs and gradients."""
    policy, learned, plain = (m.double() for m in pair(groups, kind))  # sums of other orders
    size = 1 if kind is UpConv else 8
    x = torch.randn(2 * len(groups) * 2, 3, size, size, dtype=torch.float64)
    policy.eval(), learned.eval()
    assert learned(x).equal(plain(x) if len(plain.copies) > 1 else plain.copies[0](x))
    policy.train(), learned.train()
    policy()
    ours, theirs = learned(x), plain(x)
    torch.testing.assert_close(ours, theirs)
    weight = torch.randn_like(ours)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    used = sorted(set(groups))
    for number, copy in enumerate(learned.copies):
        grads = [p.grad for p in copy.parameters()]
        if number in used:
            wanted = [p.grad for p in plain.copies[used.index(number)].parameters()]
            torch.testing.assert_close(grads, wanted)
        else:
            assert not any(grad.any() for grad in grads)


def test_straight_through_gradient_by_hand():
    """Hard values; the gradient of a choice is that of the soft one."""
    policy, learned, _ = pair([0, 1, 1], modalities=1)
    policy.temperature = 1.7
    with torch.no_grad():
        policy.logits.normal_()
    torch.manual_seed(5)
    drawn = policy()
    assert drawn.unique().tolist() == [0, 1]
    assert (drawn.sum(-1) == 1).all()
    x, weight = torch.randn(3, 3, 6, 6), torch.randn(3, 4, 3, 3)
    (learned(x) * weight).sum().backward()

    torch.manual_seed(5)
    gumbel = -torch.empty(3, 3, 2).exponential_().log()
    soft = ((policy.logits.detach() + gumbel) / 1.7).softmax(-1)
    assert drawn.argmax(-1).equal(soft.argmax(-1))
    with torch.no_grad():  # d loss / d choice: each copy's output on the task's input
        gain = torch.stack(
            [(copy(x) * weight).sum((1, 2, 3)) for copy in learned.copies], -1
        )  # (T, copies)
    p = soft[1]
    by_hand = p * (gain - (p * gain).sum(-1, keepdim=True)) / 1.7
    torch.testing.assert_close(policy.logits.grad[1], by_hand, rtol=1e-4, atol=1e-5)
    assert not policy.logits.grad[[0, 2]].any()


def test_draws_follow_the_logits():
    """Gumbel's argmax has the distribution of the softmax, at any temperature."""
    torch.manual_seed(0)
    policy = SharingPolicy(2000, 2, 2)
    with torch.no_grad():
        policy.logits[:, 0] = torch.tensor([0.0, 1.0])
    for temperature in (0.1, 5.0):
        policy.temperature = temperature
        share = policy()[..., 1].mean(0)
        torch.testing.assert_close(share, torch.tensor([0.731, 0.5]), atol=0.04, rtol=0)
    policy.eval()
    assert policy()[:, 0, 1].all()  # the likeliest


def test_temperature_sharpens_gradients():
    """Of a task whose choice is open; at 5 the soft choice is near even, near 0 it is hard."""

    def soft(temperature):
        torch.manual_seed(1)
        policy = SharingPolicy(500, 2, 2)
        policy.temperature = temperature
        policy()[..., 0].sum().backward()
        return policy.logits.grad.abs().sum(-1).mean() * temperature  # 2 p (1 - p)

    values = [float(soft(t)) for t in (5.0, 1.0, 0.05)]
    assert 0.45 < values[0] <= 0.5
    assert values[0] > values[1] > values[2]
    assert values[2] < 0.05


@settings(max_examples=25, deadline=None)
@given(layers=st.integers(1, 4), tasks=st.integers(2, 4), seed=st.integers(0, 99))
def test_sharing_loss_is_the_papers_sum(layers, tasks, seed):
    torch.manual_seed(seed)
    policy = SharingPolicy(layers, tasks, 2, sharing=0.3)
    with torch.no_grad():
        policy.logits.normal_()
    alpha = policy.logits.softmax(-1)[..., 0].tolist()
    expected = sum(
        (layers - layer) / layers * abs(alpha[layer][i] - alpha[layer][j])
        for layer in range(layers)
        for i in range(tasks)
        for j in range(i)
    )
    assert policy.loss().item() == pytest.approx(0.3 * expected, abs=1e-6)


def test_sharing_loss_of_three_copies():
    policy = SharingPolicy(1, 3, 3, sharing=1.0)
    choose(policy, 0, [0, 1, 2], by=100)
    assert policy.loss().item() == pytest.approx(3)  # three pairs that share nothing
    choose(policy, 0, [2, 2, 2], by=100)
    assert policy.loss().item() == 0


def wrappers(**modules):
    return OptimWrapperDict(
        **{
            name: OptimWrapper(torch.optim.Adam(module.parameters(), lr=rate))
            for name, (module, rate) in modules.items()
        }
    )


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_tasks_that_want_the_same_come_together(seed):
    """Tasks 0 and 2 want 2x, task 1 wants -2x: only [a, b, a] has no loss."""
    torch.manual_seed(seed)
    grid, policy = StreamGrid(3, 1), SharingPolicy(1, 3)
    layer = LearnedPerTask(lambda: nn.Conv2d(1, 1, 1), grid, policy, 0)
    optim = wrappers(network=(layer, 0.05), policy=(policy, 0.05))
    sign = torch.tensor([2.0, -2.0, 2.0]).view(1, 3, 1, 1, 1, 1)
    for step in range(600):
        policy.temperature = 5 * 0.99**step
        x = torch.randn(4, 1, 1, 1, 3, 3).expand(-1, 3, -1, -1, -1, -1)
        policy()
        y = grid.unfold(layer(grid.fold(x)))
        update_in_turn(optim, (y - sign * x).square().mean() + policy.loss(), step)
    a, b, c = policy.groups()[0]
    assert a == c != b
    layer.eval()
    x = torch.randn(5, 1, 1, 1, 3, 3).expand(-1, 3, -1, -1, -1, -1)
    torch.testing.assert_close(grid.unfold(layer(grid.fold(x))), sign * x, atol=0.1, rtol=0.1)


def test_the_sharing_loss_draws_lower_layers_first():
    policy = SharingPolicy(4, 2, sharing=1.0)
    for layer in range(4):
        choose(policy, layer, [0, 1], by=1.0)
    policy.loss().backward()
    pull = policy.logits.grad.abs().sum((1, 2))
    torch.testing.assert_close(pull / pull[0], torch.tensor([1.0, 0.75, 0.5, 0.25]))


def test_parameter_count_of_table_8():
    with torch.device('meta'):
        net = MODELS.build(dict(LEARNED, inputs=THREE))
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == 143.7
    norms = [m for m in net.down_norms.modules() if isinstance(m, nn.InstanceNorm2d)]
    widths = [128, 256, 512, 512, 512, 512]
    assert [norm.num_features for norm in norms] == widths  # one for all tasks


@pytest.mark.parametrize('groups', [[0, 0, 1], [1, 1, 1], [0, 1, 0]])
def test_generator_of_a_decided_policy_is_the_generator_of_these_groups(groups):
    """The learned one runs like a plain one, into which its checkpoint's copies go."""
    net = MODELS.build(dict(LEARNED, inputs=THREE, **SMALL)).eval()
    for layer in range(4):
        choose(net.policy, layer, groups)
    used = sorted(set(groups))
    encoder = dict(groups=[used.index(g) for g in groups])
    plain = MODELS.build(dict(PLAIN, inputs=THREE, encoder=encoder, **SMALL)).eval()
    mine = net.state_dict()
    mine.pop('policy.logits')
    for name in [name for name in mine if name.startswith('down_convs')]:
        number = int(re.search(r'copies\.(\d)', name)[1])
        value = mine.pop(name)
        if number in used:
            mine[name.replace(f'copies.{number}', f'copies.{used.index(number)}')] = value
    plain.load_state_dict(mine)  # the one norm of a layer goes into all streams
    x = torch.randn(2, 1, 3, 16, 16)
    for ours, theirs in zip(net(x), plain(x), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_checkpoints():
    """Round trip; one copy into both; the choice travels along."""
    net = MODELS.build(dict(LEARNED, inputs=THREE, **SMALL))
    with torch.no_grad():
        net.policy.logits.normal_()
    other = MODELS.build(dict(LEARNED, inputs=THREE, **SMALL))
    other.load_state_dict(net.state_dict())
    assert other.policy.groups() == net.policy.groups()
    x = torch.randn(1, 1, 3, 16, 16)
    for ours, theirs in zip(net.eval()(x), other.eval()(x), strict=True):
        assert ours.equal(theirs)
    one = dict(type='UnsharedUNet', norms='shared')  # a norm for all streams, as of this encoder
    shared = MODELS.build(dict(one, inputs=THREE, norm_cfg=NORM, **SMALL))
    missing, unexpected = net.load_state_dict(shared.state_dict(), strict=False)
    assert (missing, unexpected) == (['policy.logits'], [])
    for ours, theirs in zip(net(x), shared.eval()(x), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_copies_of_a_model_have_their_own_policy():
    net = MODELS.build(dict(LEARNED, inputs=THREE, **SMALL))
    x = torch.randn(1, 1, 3, 16, 16)
    net(x)  # with the graph of a draw
    twin = deepcopy(net)
    choose(twin.policy, 0, [1, 0, 1])
    twin.eval()(x)
    assert twin.down_convs[0].groups == (1, 0, 1)
    assert net.policy.groups()[0] == (0, 0, 0)


ERRORS = [
    (dict(copies=4), 'copies must be 2 to 3'),
    (dict(copies=1), 'copies must be 2 to 3'),
    (dict(decoder=dict(groups='learned')), "groups must be 'shared', 'task' or"),
]


@pytest.mark.parametrize(('kwargs', 'text'), ERRORS, ids=[text for _, text in ERRORS])
def test_settings_that_cannot_be(kwargs, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        MODELS.build(dict(LEARNED, inputs=THREE, **SMALL) | kwargs)


def test_the_encoder_does_not_exchange():
    net = MODELS.build(dict(LEARNED, inputs=[[0, 1]] * 2, **SMALL))
    assert {norm.axis for _, norm in exchange_norms(net)} == {'tasks'}


def test_a_policy_for_other_tasks():
    with pytest.raises(ValueError, match='the policy is for 2 tasks, the grid has 3'):
        LearnedPerTask(lambda: nn.Conv2d(1, 1, 1), StreamGrid(3, 1), SharingPolicy(1, 2), 0)


TASKS = dict(a=['rgb'], b=['rgb'], c=['rgb'])


def translator(kind='AdaShareTranslator', network=None):
    need_mmagic()
    return MODELS.build(
        dict(
            type=kind,
            tasks=task_list(TASKS),
            network=dict(LEARNED, **SMALL) if network is None else network,
            head=dict(type='ImageHead', loss=dict(type='mmagic.L1Loss', loss_weight=100.0)),
            discriminator=dict(
                type='mmagic.PatchDiscriminator',
                in_channels=6,
                base_channels=4,
                norm_cfg=dict(type='IN'),
            ),
            gan_loss=dict(type='mmagic.GANLoss', gan_type='vanilla'),
        )
    )


def optimizers(model, *more, **kwargs):
    adam = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-2), **kwargs)
    names = ('network', 'discriminators', 'ensemble', *more)
    cfg = dict(constructor='mmagic.MultiOptimWrapperConstructor', **dict.fromkeys(names, adam))
    return build_optim_wrapper(model, ConfigDict(cfg))


def batch():
    inputs = {name: list(255 * torch.rand(2, 3, 32, 32)) for name in ('rgb', *TASKS)}
    return {'inputs': inputs, 'data_samples': [SegDataSample(), SegDataSample()]}


def test_network_and_policy_take_turns():
    """Even steps change weights, odd ones the policy; no parameter is in two optimizers."""
    model = translator()
    optim = optimizers(model, 'policy')
    held = [
        id(p)
        for wrapper in optim.optim_wrappers.values()
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    ]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in model.parameters()}
    assert held.count(id(model.policy.logits)) == 1
    hub = MessageHub.get_current_instance()
    for step in range(6):
        hub.update_info('iter', step)
        before = deepcopy(model.state_dict())
        log = model.train_step(batch(), optim)
        assert log['policy.loss_sharing'].item() >= 0
        changed = {
            name.split('.')[0]
            for name, value in model.state_dict().items()
            if not value.equal(before[name])
        }
        assert ('network' in changed, 'policy' in changed) == (step % 2 == 0, step % 2 == 1)
        assert 'discriminators' in changed
        assert all(not p.grad.any() for p in model.network.parameters() if p.grad is not None)
        assert model.policy.logits.grad is None or not model.policy.logits.grad.any()
    hub.update_info('iter', 0)


def test_translators_checkpoint_has_the_policy_once():
    model = translator()
    assert [name for name in model.state_dict() if 'logits' in name] == ['policy.logits']
    choose(model.policy, 2, [0, 1, 1])
    other = translator()
    other.load_state_dict(model.state_dict())
    assert other.policy.groups()[2] == (0, 1, 1)
    inputs = batch()
    one, two = (
        m.eval().test_step(deepcopy(inputs))[0].outputs.b.ensemble.pred for m in (model, other)
    )
    assert one.equal(two)
    assert model.network.down_convs[2].groups == (0, 1, 1)


def test_optimizers_that_do_not_fit():
    model = translator()
    with pytest.raises(ValueError, match="optim_wrapper has no 'policy', only .* add policy=dict"):
        model.train_step(batch(), optimizers(model))
    with pytest.raises(ValueError, match=r"accumulative_counts is 2 in optim_wrapper\['network'\]"):
        model.train_step(batch(), optimizers(model, 'policy', accumulative_counts=2))


def test_without_a_policy_nothing_is_logged():
    plain = dict(type='CENUNetGenerator', **SMALL)
    model = translator('CENTranslator', plain)
    log = model.train_step(batch(), optimizers(model))
    assert find_policy(model) is None
    assert not any('policy' in name for name in log)


def test_one_optimizer_trains_both_without_a_discriminator():
    """CENMultiTask knows no turns; the policy, a part of the network, learns from the tasks."""
    model = MODELS.build(
        dict(type='CENMultiTask', tasks=task_list(TASKS), network=dict(LEARNED, **SMALL))
    )
    optim = build_optim_wrapper(
        model, ConfigDict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-2))
    )
    before = deepcopy(model.state_dict())
    model.train_step(batch(), optim)
    changed = {n for n, v in model.state_dict().items() if not v.equal(before[n])}
    assert 'network.policy.logits' in changed
    assert 'network.down_convs.0.copies.0.weight' in changed


class Run:
    """What PolicyHook asks of a runner."""

    def __init__(self, model):
        self.model, self.epoch, self.iter = model, 0, 0
        self.message_hub = MessageHub.get_instance('test_policy_hook')


def test_policy_hook():
    net = MODELS.build(dict(LEARNED, inputs=THREE, **SMALL))
    hook, runner = PolicyHook(interval=1), Run(nn.Sequential(net))
    for epoch, expected in ((0, 5.0), (1, 4.825), (20, 5 * 0.965**20)):
        runner.epoch = epoch
        hook.before_train_epoch(runner)
        assert net.policy.temperature == pytest.approx(expected)
    choose(net.policy, 3, [0, 1, 1])
    hook.after_train_iter(runner, 0)
    found = {
        name: runner.message_hub.get_scalar(f'train/policy/{name}').current()
        for name in ('copy0', 'copy1', 'shared')
    }
    assert found == {'copy0': 10 / 12, 'copy1': 2 / 12, 'shared': 3 / 4}


def test_policy_hook_without_a_policy():
    with pytest.raises(ValueError, match='the model has no policy: use AdaShareTranslator'):
        PolicyHook().before_train_epoch(Run(nn.Conv2d(1, 1, 1)))
    for kwargs in (dict(temperature=0), dict(decay=1.1)):
        with pytest.raises(ValueError, match='must be positive and decay .* in 0..1'):
            PolicyHook(**kwargs)
