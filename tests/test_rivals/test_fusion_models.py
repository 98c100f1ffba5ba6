"""Fusion baselines in models, from configs: parameters of Table 2, training, errors."""

from functools import partial

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

from mmcen.core import PrivateCopies, exchange_norms
from projects.paper.rivals.fusion import fusion_losses
from tests.optional import need_mmagic
from tests.training import ROOT

STAGES = ('layer1', 'layer2', 'layer3', 'layer4')
PLACES = dict(early=STAGES[1:2], middle=STAGES[2:3], late=STAGES[3:], all=STAGES)
# millions of Table 2: of the commonly used setting, of the paper's own setting, of the fusion
PARAMETERS = {
    ('ConcatFusion', 'early'): (120.1, 118.8, 0.6),
    ('ConcatFusion', 'middle'): (147.7, 120.3, 2.1),
    ('ConcatFusion', 'late'): (169.0, 126.6, 8.4),
    ('ConcatFusion', 'all'): (171.7, 129.4, 11.2),
    ('AlignFusion', 'early'): (238.8, 120.8, 2.6),
    ('AlignFusion', 'middle'): (246.7, 128.7, 10.5),
    ('AlignFusion', 'late'): (278.1, 160.1, 41.9),
    ('AlignFusion', 'all'): (291.9, 173.9, 55.7),
    ('SelfAttentionFusion', 'early'): (124.9, 123.6, 5.4),
    ('SelfAttentionFusion', 'middle'): (166.9, 139.4, 21.2),
    ('SelfAttentionFusion', 'late'): (245.5, 203.2, 84.9),
    # the paper prints 272.3, 1.1 M less than two encoders, one decoder and its own 112.8 M
    ('SelfAttentionFusion', 'all'): (273.4, 231.0, 112.8),
}


@pytest.mark.parametrize('common', [True, False], ids=['common', 'own'])
@pytest.mark.parametrize(('kind', 'stage'), PARAMETERS)
def test_parameters_of_table_2(kind, stage, common):
    fusion = dict(type=kind, after=PLACES[stage], merge=common)
    options = dict(type='FusionEncoderDecoder', fusion=fusion)
    if common and kind == 'AlignFusion':  # keeps two whole networks
        fusion['merge'], options['convs'] = False, 'private'
    cfg = Config.fromfile(ROOT / 'configs' / 'cen' / 'nyud_refinenet_r101.py').model
    cfg.pop('exchange', None)
    with torch.device('meta'):
        model = MODELS.build({**cfg, **options})
    count = sum(p.numel() for p in model.parameters()) / 1e6
    assert count == pytest.approx(PARAMETERS[kind, stage][0 if common else 1], abs=0.1)
    own = sum(p.numel() for name, p in model.named_parameters() if '.fusion' in name) / 1e6
    assert own == pytest.approx(PARAMETERS[kind, stage][2], abs=0.1)


def segmenter(fusion, **kwargs):
    stats = dict(mean=[0.0], std=[1.0])
    own = dict(type='FusionEncoderDecoder', fusion=fusion)
    return dict(
        data_preprocessor=dict(
            type='CENDataPreprocessor', modalities=[dict(name=name, **stats) for name in 'abc']
        ),
        backbone=dict(
            type='CENResNet',
            depth=18,
            base_channels=16,
            stem_channels=16,
            in_channels=1,
            norm_eval=False,
        ),
        decode_head=dict(
            type='RefineNetHead',
            in_channels=[16, 32, 64, 128],
            channels=16,
            num_classes=3,
            light_weight=True,
        ),
        test_cfg=ConfigDict(mode='whole'),
        **(own if fusion else dict(type='CENEncoderDecoder', exchange=dict(after=None))),
        **kwargs,
    )


KINDS = ['ConcatFusion', 'AverageFusion', 'SelfAttentionFusion', 'CBNFusion', 'AlignFusion']


@pytest.mark.parametrize('merge', [False, True])
@pytest.mark.parametrize('after', [STAGES[1:2], STAGES])
@pytest.mark.parametrize('kind', KINDS)
def test_segmenters_train_and_predict(kind, after, merge):
    torch.manual_seed(0)
    if kind == 'AlignFusion' and merge:
        model = MODELS.build(segmenter(dict(type=kind, after=after), convs='private'))
        assert len(model.decode_head.conv_seg.copies) == 3
    else:
        model = MODELS.build(segmenter(dict(type=kind, after=after, merge=merge)))
    model.init_weights()
    label = PixelData(data=torch.randint(3, (1, 64, 64)))
    size = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), (64, 64))
    samples = [SegDataSample(metainfo=size, gt_sem_seg=label) for _ in range(2)]
    inputs = torch.randn(2, 3, 64, 64)
    losses = model.train().loss(inputs, samples)
    streams = ('fused',) if merge and kind != 'AlignFusion' else ('a', 'b', 'c')
    names = {key.split('.')[1] for key in losses if key.startswith('decode')}
    assert names == {'ensemble', *streams}
    assert ('fusion.loss_align' in losses) == (kind == 'AlignFusion')
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    gradients = {k for k, p in model.named_parameters() if p.grad is not None}
    assert all(name in gradients for name, _ in model.named_parameters() if 'fusion' in name)
    predicted = model.eval().predict(inputs, samples)
    assert predicted[0].outputs.semseg.keys() == ['ensemble', *streams]
    if streams == ('fused',):
        fused = predicted[0].outputs.semseg.fused.pred_sem_seg.data
        assert torch.equal(fused, predicted[0].pred_sem_seg.data)


@pytest.mark.parametrize('kind', ['ConcatFusion', 'SelfAttentionFusion'])
def test_identity_outlives_the_backbones_init_cfg(kind):
    fusion = dict(type=kind, after=STAGES, identity=True)
    model, plain = (MODELS.build(segmenter(f)) for f in (fusion, None))
    model.init_weights()
    assert not plain.load_state_dict(model.state_dict(), strict=False).missing_keys
    x = torch.randn(2, 3, 64, 64)
    features = [m.eval().extract_feat(x) for m in (model, plain)]
    torch.testing.assert_close(*features)


@pytest.mark.parametrize('kind', ['ConcatFusion', 'SelfAttentionFusion'])
def test_identity_outlives_the_generators_init_cfg(kind):
    fusion = dict(type=kind, after=(1, 2, 3, 4), merge=True, identity=True)
    network = MODELS.build(translator(fusion)).network
    network.init_weights()
    first = network.down_norms[0].fusion
    x = torch.randn(2, first.channels, 4, 4)  # two modalities that merge at the end
    torch.testing.assert_close(first(x)[:1], x[:1])


def test_what_is_private_up_to_the_fusion_is_one_after_it():
    model = MODELS.build(segmenter(dict(type='ConcatFusion', after=['layer2'], merge=True)))
    backbone = model.backbone
    private = [m for m in (backbone.conv1, backbone.layer1, backbone.layer2) for m in m.modules()]
    assert sum(isinstance(m, PrivateCopies) for m in private) == 1 + 4 + 5
    assert not any(isinstance(m, PrivateCopies) for m in backbone.layer3.modules())
    assert backbone.layer2[1].norm2.grid.modalities == 3
    assert type(backbone.layer3[1].norm2) is nn.BatchNorm2d
    features = model.extract_feat(torch.randn(2, 3, 64, 64))
    assert [y.shape[0] for y in features] == [2, 2, 2, 2]


def test_only_the_first_stream_reaches_the_decoder_before_the_fusion():
    model = MODELS.build(segmenter(dict(type='ConcatFusion', after='layer3', merge=True))).eval()
    x = torch.randn(1, 3, 64, 64)
    other = x.clone()
    other[:, 1:] += 1
    before, after = model.extract_feat(x), model.extract_feat(other)
    assert all(torch.equal(a, b) for a, b in zip(before[:2], after[:2], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(before[2:], after[2:], strict=True))


def test_places_come_in_the_order_in_which_they_run():
    """The last of them is where streams merge, whatever the order of the names."""
    found = []
    for after in (['layer1', 'layer3'], ['layer3', 'layer1', 'layer3']):
        torch.manual_seed(0)
        model = MODELS.build(segmenter(dict(type='AverageFusion', after=after, merge=True))).eval()
        assert [model.backbone.get_submodule(f'{name}.fusion').last for name in after[:2]] == [
            name == 'layer3' for name in after[:2]
        ]
        found.append(model.extract_feat(torch.ones(1, 3, 64, 64)))
    assert [len(y) for y in found[1]] == [1] * 4
    for one, other in zip(*found, strict=True):
        assert one.shape == other.shape


def translator(fusion=None, tasks=None, **network):
    need_mmagic()
    settings = dict(downs=4, base_channels=8, dropout_ratio=0.5, **network)
    kind = dict(type='FusionUNet', fusion=fusion) if fusion else dict(type='UnsharedUNet')
    return dict(
        type='FusionTranslator',
        tasks=tasks or [dict(name='rgb', inputs=['reshading', 'edge_texture'])],
        network=dict(kind, **settings),
        head=dict(type='ImageHead', loss=dict(type='mmagic.L1Loss', loss_weight=100.0)),
        discriminator=dict(
            type='mmagic.PatchDiscriminator',
            in_channels=6,
            base_channels=4,
            norm_cfg=dict(type='IN'),
        ),
        gan_loss=dict(type='mmagic.GANLoss', gan_type='vanilla'),
    )


@pytest.mark.parametrize('merge', [False, True])
@pytest.mark.parametrize('after', [(1,), (4,), (1, 2, 3, 4)])
@pytest.mark.parametrize('kind', KINDS)
def test_translators_train_and_predict(kind, after, merge):
    torch.manual_seed(0)
    fusion = dict(type=kind, after=after, merge=merge and kind != 'AlignFusion')
    private = merge and kind == 'AlignFusion'
    cfg = translator(fusion, convs='private' if private else 'shared')
    model = MODELS.build(cfg).train()
    assert not list(exchange_norms(model))
    domains = {name: torch.rand(2, 3, 32, 32) * 2 - 1 for name in model.names}
    outputs = model.outputs(domains)
    streams = ['fused'] if fusion['merge'] else ['reshading', 'edge_texture']
    assert list(outputs['rgb']) == ['ensemble', *streams]
    assert model.streams == [f'rgb/{name}' for name in streams]
    assert model.ensemble.scores().numel() == len(streams)  # a log line names each score
    losses = model.loss(outputs, domains)
    assert ('fusion.loss_align' in losses) == (kind == 'AlignFusion')
    fakes = {'rgb': {name: outputs['rgb'][name] for name in streams}}
    sum([*losses.values(), *model._gan_losses(domains, fakes).values()]).backward()
    assert all(p.grad is not None for p in model.network.parameters())


def test_without_fusion_nothing_is_lost():
    assert fusion_losses(MODELS.build(segmenter(None))) == {}


NAMES = r"give names of \['layer1', .*'layer4'"


@pytest.mark.parametrize(
    ('fusion', 'text'),
    [
        (dict(type='ConcatFusion', after=['layer5']), r"fusion after \['layer5'\]: " + NAMES),
        (dict(type='ConcatFusion', after=['conv1']), r"fusion after \['conv1'\]: " + NAMES),
        (dict(type='ConcatFusion'), r'fusion after \[\]: ' + NAMES),
        (dict(type='ConcatFusion', after=2), r'fusion after \[2\]: ' + NAMES),
        (dict(type='ConcatFusion', after='2'), r"fusion after \['2'\]: " + NAMES),
    ],
)
def test_errors_of_backbones(fusion, text):
    with pytest.raises(ValueError, match=text):
        MODELS.build(segmenter(fusion))


def test_exchange_beside_a_fusion():
    fusion = dict(type='ConcatFusion', after=['layer2'])
    assert not list(exchange_norms(MODELS.build(segmenter(fusion))))
    assert list(exchange_norms(MODELS.build(segmenter(fusion, exchange=dict(after='norm')))))
    with pytest.raises(ValueError, match="cannot exchange: leave exchange={'after': 'norm'} "):
        MODELS.build(segmenter(dict(fusion, merge=True), exchange=dict(after='norm')))


def test_private_convs_beside_a_merge():
    own = "fusion with merge=True gives streams their own .* leave convs='private' out"
    fusion = partial(dict, type='ConcatFusion', merge=True)
    with pytest.raises(ValueError, match=own):
        MODELS.build(segmenter(fusion(after=['layer1']), convs='private'))
    with pytest.raises(ValueError, match=own):
        MODELS.build(translator(fusion(after=(1,)), convs='private'))


def test_errors_of_generators():
    fusion = dict(type='ConcatFusion', after=(1,))
    with pytest.raises(ValueError, match=r'fusion after layer \[9\]: give numbers of 1 to 4'):
        MODELS.build(translator(dict(fusion, after=(9,))))
    with pytest.raises(ValueError, match=r'fusion after layer \[\]: give numbers of 1 to 4'):
        MODELS.build(translator(dict(type='ConcatFusion')))
    with pytest.raises(ValueError, match='fusion after layer 2: give numbers of 1 to 4'):
        MODELS.build(translator(dict(fusion, after=2)))
    two = [dict(name=name, inputs=['normal']) for name in ('rgb', 'reshading')]
    with pytest.raises(ValueError, match="convs='private', and fusion .* are for one task"):
        MODELS.build(translator(tasks=two, convs='private'))
    with pytest.raises(ValueError, match="convs must be 'private' or 'shared', got 'own'"):
        MODELS.build(translator(convs='own'))
    with pytest.raises(ValueError, match="norms must be 'private' or 'shared', got 'own'"):
        MODELS.build(translator(norms='own'))


def test_private_convolutions_of_a_generator():
    """One for each stream in every layer; streams that share norms are told apart by them alone."""
    network = MODELS.build(translator(convs='private', norms='shared')).network.eval()
    copies = [m for m in network.modules() if isinstance(m, PrivateCopies)]
    assert len(copies) == 4 + 4
    assert all(len(m.copies) == 2 for m in copies)
    x = torch.randn(1, 1, 3, 32, 32).expand(-1, 2, -1, -1, -1)
    first, second = network(x)[0].unbind(1)
    assert not torch.allclose(first, second)
    shared = MODELS.build(translator(norms='shared')).network.eval()
    assert not any(isinstance(m, PrivateCopies) for m in shared.modules())
    torch.testing.assert_close(*shared(x)[0].unbind(1))
