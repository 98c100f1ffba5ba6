"""What Tables 1, 11 and 12 change of an exchanging norm, against loops written for reading."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import MODELS
from torch import nn

from mmcen.core import exchange_norms, exchanged_shares
from mmcen.core.functional import part_bounds
from mmcen.engine import SparsityHook
from mmcen.layers import CENBN, CENIN, ExchangeNorm
from projects.paper.rivals.ablations import share_half
from projects.paper.rivals.stand_ins import STAND_INS, make_stand_in


def replacing(norm, kind):
    """A norm whose replaced channels become something else than the mean of the others."""
    norm.replacement = make_stand_in(kind, norm.grid.length(norm.axis), norm.num_features)
    return norm


def part_of(channel, n, channels):
    bounds = part_bounds(n, channels)
    return max(p for p in range(n) if bounds[p] <= channel)


def same_places(channel, n, channels):
    """Channels at the place of one in the other sub-parts, Figure 10."""
    bounds = part_bounds(n, channels)
    own = part_of(channel, n, channels)
    size = bounds[own + 1] - bounds[own]
    found = []
    for k in range(1, n):
        other = (own + k) % n
        place = (channel - bounds[own]) * (bounds[other + 1] - bounds[other]) // size
        found.append(bounds[other] + place)
    return found


def normalised(norm, x):
    """The stock norm alone on folded streams, as (n, B, C, H, W)."""
    streams = x.view(-1, 2, *x.shape[1:]).transpose(0, 1)  # (B, n, C, H, W)
    return norm.norm(streams.flatten(1, 2)).view(streams.shape).transpose(0, 1)


def mean(values):
    return sum(values) / len(values)


def stand_in(kind, x, gamma, m, i, norm):
    """Of channel i of stream m; x is n of (B, C, H, W), gamma (n, C)."""
    n, channels = gamma.shape
    others = [x[(m + k) % n] for k in range(1, n)]
    places = same_places(i, n, channels)
    if kind == 'mean':
        return mean([y[:, i] for y in others])
    if kind == 'zero':
        return torch.zeros_like(x[m][:, i])
    if kind == 'another':
        return x[(m + 1) % n][:, i]
    if kind == 'same_spaced':
        return mean([x[m][:, c] for c in places])
    if kind == 'same_random':
        drawn = int(norm.replacement.drawn[i])
        assert part_of(drawn, n, channels) != part_of(i, n, channels)
        return x[m][:, drawn]
    if kind == 'others_spaced':
        return mean([y[:, c] for y in others for c in places])
    if kind == 'others_both':
        return mean([y[:, c] for y in others for c in [i, *places]])
    if kind == 'others_largest':
        chosen = []
        for k in range(1, n):
            j = (m + k) % n
            rest = [c for c in range(channels) if c != i]
            strongest = sorted(rest, key=lambda c, j=j: -abs(float(gamma[j, c])))[: n - 1]
            chosen += [x[j][:, c] for c in strongest]
        return mean(chosen)
    if n == 2:  # "Same with CEN"
        return others[0][:, i]
    own = norm.replacement
    weights = own.scores[m].softmax(0) if kind == 'weighted' else own.weight[i]
    return sum(w * y[:, i] for w, y in zip(weights, others, strict=True))


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(STAND_INS),
    n=st.integers(2, 4),
    channels=st.integers(4, 9),
    axis=st.sampled_from(['modalities', 'tasks']),
    seed=st.integers(0, 99),
)
def test_stand_ins_are_those_of_table_12(kind, n, channels, axis, seed):
    torch.manual_seed(seed)
    norm = replacing(CENIN(channels, axis=axis, **{axis: n}, threshold=0.3), kind)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(n * channels))
        for parameter in norm.replacement.parameters() if norm.replacement is not None else ():
            parameter.add_(torch.rand_like(parameter))
    x = torch.randn(2 * n, channels, 3, 4, requires_grad=True)
    streams, gamma = normalised(norm, x).unbind(0), norm.weight.view(n, channels)
    mask = norm.exchange_mask().view(n, channels)
    wanted = torch.stack(
        [
            torch.stack(
                [
                    stand_in(kind, streams, gamma, m, i, norm) if mask[m, i] else streams[m][:, i]
                    for i in range(channels)
                ],
                1,
            )
            for m in range(n)
        ]
    )  # (n, B, C, H, W)
    found = norm(x).view(wanted.shape)
    torch.testing.assert_close(found, wanted)
    weights = torch.randn_like(found)
    parameters = [x, norm.weight]
    for ours, oracle in zip(
        torch.autograd.grad((found * weights).sum(), parameters, retain_graph=True),
        torch.autograd.grad((wanted * weights).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(ours, oracle)


@pytest.mark.parametrize('kind', ['same_random', 'weighted', 'concat'])
def test_what_is_drawn_or_learned_is_saved(kind):
    first, second = (replacing(CENBN(12, modalities=3), kind) for _ in range(2))
    assert first.state_dict().keys() != CENBN(12, modalities=3).state_dict().keys()
    second.load_state_dict(first.state_dict())
    x = torch.randn(6, 12, 4, 4)
    torch.testing.assert_close(first(x), second(x), rtol=0, atol=0)


@pytest.mark.parametrize('region', ['disjoint', 'all'])
def test_a_fixed_portion(region):
    norm = CENBN(20, modalities=2, selection='fixed', share=0.3, region=region)
    mask = norm.exchange_mask()[0]
    assert mask.sum(1).tolist() == [6, 6]  # 30 % of 20
    if region == 'disjoint':
        assert not mask[0, 10:].any()
        assert not mask[1, :10].any()
    assert torch.equal(mask, norm.exchange_mask()[0])
    with torch.no_grad():
        norm.weight.zero_()  # gamma has no say
    assert torch.equal(mask, norm.exchange_mask()[0])
    assert not norm.penalised.any()
    capped = CENBN(20, modalities=4, selection='fixed', share=0.3)
    assert capped.exchange_mask().sum(-1).tolist() == [[5] * 4]  # all of the sub-part
    assert exchanged_shares(nn.Sequential(capped))['0'].tolist() == [[0.25] * 4]


def test_random_channels_are_drawn_in_training_alone():
    norm = CENBN(40, modalities=2, selection='random', share=0.3)
    x = torch.randn(4, 40, 3, 3)
    masks = []
    for _ in range(5):
        norm(x)
        masks.append(norm.exchange_mask())
        assert masks[-1].sum(-1).tolist() == [[12, 12]]
        assert not masks[-1][0, 0, 20:].any()
    assert any(not torch.equal(masks[0], mask) for mask in masks)
    norm.eval()
    fixed = CENBN(40, modalities=2, selection='fixed', share=0.3).exchange_mask()
    assert torch.equal(norm.exchange_mask(), fixed)
    assert torch.equal(norm(x), norm(x))
    SparsityHook(1e-2).attach(norm, optimizer := torch.optim.SGD(norm.parameters(), lr=1.0))
    norm.weight.grad = torch.zeros_like(norm.weight)
    optimizer.step()
    assert (norm.weight == 1).all()


def test_random_mask_is_what_the_output_shows():
    norm = CENBN(40, modalities=2, selection='random')
    x = torch.randn(4, 40, 3, 3)
    changed = (norm(x).view(2, 2, 40, 3, 3) != normalised(norm, x)).any(1).flatten(2).any(2)
    assert torch.equal(changed, norm.exchange_mask()[0])


@pytest.mark.parametrize('kind', [CENBN, CENIN])
@pytest.mark.parametrize('shared', ['affine', 'statistics'])
@pytest.mark.parametrize('train', [True, False])
def test_half_of_a_norm_is_shared(kind, shared, train):
    torch.manual_seed(0)
    norm = share_half(kind(6, modalities=3, exchange=False, track_running_stats=True), shared)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.rand_like(parameter))
    affine, measured = (6, 18) if shared == 'affine' else (18, 6)
    assert [p.numel() for p in norm.parameters()] == [affine, affine]
    assert norm.norm.statistics.running_mean.numel() == measured
    stock = nn.BatchNorm2d if kind is CENBN else nn.InstanceNorm2d
    options = dict(affine=False, track_running_stats=True)
    x = torch.randn(6, 6, 5, 4)
    streams = x.view(3, 2, 6, 5, 4)
    norm.train()
    norm(x)
    norm.train(train)
    y = norm(x).view(streams.shape)
    if shared == 'affine':
        alone = [stock(6, **options) for _ in range(3)]
        normal = []
        for m, one in enumerate(alone):
            one(streams[m])
            normal.append(one.train(train)(streams[m]))
    else:
        one = stock(6, **options)
        one(x)
        normal = one.train(train)(x).view(streams.shape)
    for m in range(3):
        part = slice(0, 6) if shared == 'affine' else slice(6 * m, 6 * m + 6)
        weight, bias = (p[part].view(-1, 1, 1) for p in (norm.weight, norm.bias))
        torch.testing.assert_close(y[m], normal[m] * weight + bias)


def test_a_stock_norm_loads_into_a_partly_shared_one():
    stock = nn.BatchNorm2d(6)
    nn.init.uniform_(stock.weight)
    stock.running_mean.uniform_()
    for shared in ('affine', 'statistics'):
        model = nn.Sequential(share_half(CENBN(6, modalities=2, exchange=False), shared)).eval()
        model.load_state_dict({f'0.{k}': v for k, v in stock.state_dict().items()})
        x = torch.randn(4, 6, 3, 3)
        torch.testing.assert_close(model(x), stock.eval()(x))


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (
            dict(selection='best'),
            r"selection must be one of \('threshold', 'budget', 'fixed', 'random'\), got 'best'",
        ),
        (dict(selection='fixed', budget=0.2), "budget=0.2 beside selection='fixed': leave one"),
        (dict(budget=0.2, region='all'), "a budget chooses inside disjoint .* got region='all'"),
        (dict(selection='fixed', share=2), 'share must be within 0..1, got 2'),
    ],
)
def test_errors(options, text):
    with pytest.raises(ValueError, match=text):
        CENBN(8, modalities=2, **options)


def unet(kind='AblatedUNet', **options):
    """A small generator of two tasks from two modalities, of which half of the scales are small."""
    torch.manual_seed(0)
    settings = dict(inputs=[[0, 1], [0, 1]], downs=4, base_channels=6, dropout_ratio=0)
    net = MODELS.build(dict(type=kind, **settings, **options))
    torch.manual_seed(1)
    with torch.no_grad():
        for norm in (m for m in net.modules() if isinstance(m, ExchangeNorm)):
            small = torch.rand_like(norm.weight) < 0.5
            norm.weight.copy_(torch.where(small, 1e-3, 1.0))
    return net


@pytest.mark.parametrize('kind', STAND_INS)
def test_stand_ins_of_a_generator(kind):
    """The mean, and its equals between two streams, are the paper's generator."""
    x = torch.randn(2, 2, 3, 16, 16)
    paper, other = unet('CENUNetGenerator'), unet(replace=kind)
    norms = [norm for _, norm in exchange_norms(other)]
    assert {norm.axis for norm in norms} == {'modalities', 'tasks'}
    same = kind in ('mean', 'another', 'weighted', 'concat')
    for norm in norms:
        assert (norm.replacement is None) == (kind in ('mean', 'weighted', 'concat'))
    equal = all(torch.allclose(a, b, atol=1e-5) for a, b in zip(paper(x), other(x), strict=True))
    assert equal == same


@pytest.mark.parametrize('shared', ['affine', 'statistics'])
def test_half_of_the_norms_of_a_generator_is_shared(shared):
    off = dict(exchange=False)
    net = unet(shared=shared, encoder=off, decoder=off)
    norms = [m for m in net.modules() if isinstance(m, ExchangeNorm)]
    assert len(norms) == 2 + 3
    assert {m.weight.numel() // m.num_features for m in norms} == {1 if shared == 'affine' else 4}
    assert not list(exchange_norms(net))
    assert [tuple(y.shape) for y in net(torch.randn(1, 2, 3, 16, 16))] == [(1, 2, 3, 16, 16)] * 2


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(replace='median'), "replace must be one of .*, got 'median'"),
        (dict(shared='all'), "shared must be one of .*, got 'all'"),
        (dict(shared='affine'), "shared='affine' leaves one gamma .* set exchange=False"),
    ],
)
def test_errors_of_ablations(options, text):
    with pytest.raises(ValueError, match=text):
        unet(**options)


def segmentor(**options):
    cfg = dict(
        type='UnsharedEncoderDecoder',
        data_preprocessor=dict(
            type='CENDataPreprocessor',
            modalities=[dict(name=name, mean=[0.0], std=[1.0]) for name in 'ab'],
        ),
        backbone=dict(type='CENResNet', depth=18, in_channels=1),
        decode_head=dict(
            type='mmseg.FCNHead', in_channels=512, in_index=3, channels=8, num_classes=3
        ),
    )
    return MODELS.build(cfg | options)


def test_streams_of_a_segmenter_may_share_stock_norms():
    """By default their norms are private."""
    assert any(isinstance(m, ExchangeNorm) for m in segmentor().modules())
    with pytest.raises(ValueError, match="norms must be 'private' or 'shared', got 'own'"):
        segmentor(norms='own')
    model = segmentor(norms='shared').eval()
    assert not any(isinstance(m, ExchangeNorm) for m in model.modules())
    x = torch.randn(1, 1, 64, 64)
    logits = model(torch.cat([x, x], 1), mode='tensor')
    torch.testing.assert_close(logits['a'], logits['b'])
