"""Fusion baselines in models, from configs: parameters of Table 2, training, errors."""

import pytest
import torch
import yaml
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmcen.layers import PerTask, fusion_losses
from mmcen.layers.fusion import Fusion
from projects.paper.experiments import load
from projects.paper.rows import PUBLISHED, TABLES

PARAMS = yaml.safe_load(PUBLISHED.read_text())['tables']['table2']['params']
# the paper prints 272.3, 1.1 M less than two encoders, one decoder and its own 112.8 M
COUNTED = {('selfatt-all', 'common'): 273.4}


@pytest.mark.parametrize('row', TABLES['table2'].rows)
def test_parameters_of_table_2(row):
    for part, run in TABLES['table2'].rows[row].runs.items():
        with torch.device('meta'):
            model = MODELS.build(load(run, 'nyuv2').model)
        count = sum(p.numel() for p in model.parameters()) / 1e6
        wanted = COUNTED.get((row, part)) or PARAMS[row][part or 'all']
        assert count == pytest.approx(wanted, abs=0.1)
        fusion = sum(p.numel() for name, p in model.named_parameters() if '.fusion' in name)
        assert fusion / 1e6 == pytest.approx(PARAMS[row].get('fusion', 0), abs=0.1)


ROWS_THAT_FUSE = [
    (run, dataset)
    for table in TABLES.values()
    for row in table.rows.values()
    for run in row.runs.values()
    if run.fusion
    for dataset in ('nyuv2', 'nyuv2-efflite0')
    if run.fits(dataset)
]


@pytest.mark.parametrize(('run', 'dataset'), ROWS_THAT_FUSE)
def test_rows_that_fuse_do(run, dataset):
    with torch.device('meta'):
        model = MODELS.build(load(run, dataset).model)
    found = {type(m).__name__ for m in model.modules() if isinstance(m, Fusion)}
    assert found == {run.fusion.type}


def segmenter(fusion, exchange=False, **kwargs):
    stats = dict(mean=[0.0], std=[1.0])
    return dict(
        type='CENEncoderDecoder',
        data_preprocessor=dict(
            type='CENDataPreprocessor', modalities=dict.fromkeys(('a', 'b', 'c'), stats)
        ),
        backbone=dict(
            type='CENResNet',
            depth=18,
            base_channels=16,
            stem_channels=16,
            in_channels=1,
            norm_eval=False,
            norm_cfg=dict(type='CENBN', exchange=exchange),
            fusion=fusion,
        ),
        decode_head=dict(
            type='RefineNetHead',
            in_channels=[16, 32, 64, 128],
            channels=16,
            num_classes=3,
            light_weight=True,
        ),
        test_cfg=ConfigDict(mode='whole'),
        **kwargs,
    )


KINDS = ['ConcatFusion', 'AverageFusion', 'SelfAttentionFusion', 'CBNFusion', 'AlignFusion']


@pytest.mark.parametrize('merge', [False, True])
@pytest.mark.parametrize('after', [(2,), (1, 2, 3, 4)])
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
    assert set(predicted[0].streams.keys()) == set(streams)
    if streams == ('fused',):
        fused = predicted[0].streams.fused.pred_sem_seg.data
        assert torch.equal(fused, predicted[0].pred_sem_seg.data)


@pytest.mark.parametrize('kind', ['ConcatFusion', 'SelfAttentionFusion'])
def test_identity_outlives_the_backbones_init_cfg(kind):
    fusion = dict(type=kind, after=(1, 2, 3, 4), identity=True)
    model, plain = (MODELS.build(segmenter(f)) for f in (fusion, None))
    model.init_weights()
    assert not plain.load_state_dict(model.state_dict(), strict=False).missing_keys
    x = torch.randn(2, 3, 64, 64)
    features = [m.eval().extract_feat(x) for m in (model, plain)]
    torch.testing.assert_close(*features)


@pytest.mark.parametrize('row', ['concat-all', 'selfatt-all'])
def test_identity_outlives_the_generators_init_cfg(row):
    cfg = load(TABLES['table4'].rows[f'shade-texture_to_rgb+{row}'].runs[''], 'nyuv2')
    cfg.model.network.encoder.fusion.identity = True
    network = MODELS.build(cfg.model).network
    network.init_weights()
    x = torch.randn(2, network.fusions['0'].channels, 4, 4)  # two modalities that merge at the end
    torch.testing.assert_close(network.fusions['0'](x)[:1], x[:1])


def test_what_is_private_up_to_the_fusion_is_one_after_it():
    model = MODELS.build(segmenter(dict(type='ConcatFusion', after=(2,), merge=True)))
    backbone = model.backbone
    private = [m for m in (backbone.conv1, backbone.layer1, backbone.layer2) for m in m.modules()]
    assert sum(isinstance(m, PerTask) for m in private) == 1 + 4 + 5
    assert not any(isinstance(m, PerTask) for m in backbone.layer3.modules())
    assert backbone.layer2[1].norm2.grid.modalities == 3
    assert backbone.layer3[1].norm2.grid.modalities == 1
    features = model.extract_feat(torch.randn(2, 3, 64, 64))
    assert [y.shape[0] for y in features] == [2, 2, 2, 2]


def test_only_the_first_stream_reaches_the_decoder_before_the_fusion():
    model = MODELS.build(segmenter(dict(type='ConcatFusion', after=(3,), merge=True))).eval()
    x = torch.randn(1, 3, 64, 64)
    other = x.clone()
    other[:, 1:] += 1
    before, after = model.extract_feat(x), model.extract_feat(other)
    assert all(torch.equal(a, b) for a, b in zip(before[:2], after[:2], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(before[2:], after[2:], strict=True))


def translator(encoder, tasks=None, convs='shared'):
    pytest.importorskip('mmagic', reason='image translation needs mmagic')
    run = TABLES['table4'].rows['shade-texture_to_rgb+cen'].runs['']
    cfg = load(run, 'synthetic').model
    cfg.network.update(downs=4, base_channels=8, encoder=encoder, convs=convs)
    cfg.tasks = tasks or cfg.tasks
    return cfg


@pytest.mark.parametrize('merge', [False, True])
@pytest.mark.parametrize('after', [(1,), (4,), (1, 2, 3, 4)])
@pytest.mark.parametrize('kind', KINDS)
def test_translators_train_and_predict(kind, after, merge):
    torch.manual_seed(0)
    fusion = dict(type=kind, after=after, merge=merge and kind != 'AlignFusion')
    private = merge and kind == 'AlignFusion'
    cfg = translator(dict(exchange=False, fusion=fusion), convs='private' if private else 'shared')
    model = MODELS.build(cfg).train()
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


@pytest.mark.parametrize(
    ('fusion', 'exchange', 'text'),
    [
        (dict(type='ConcatFusion', after=(2,)), True, 'fusion is there in place of exchange'),
        (dict(type='ConcatFusion', after=(5,)), False, r'fusion after stage \[5\]: give numbers'),
        (dict(type='ConcatFusion'), False, r'fusion after stage \[\]: give numbers of 1 to 4'),
        (dict(type='ConcatFusion', after=2), False, 'fusion after stage 2: give numbers of 1 to 4'),
        (dict(type='ConcatFusion', after='2'), False, r"fusion after stage \['2'\]: give numbers"),
    ],
)
def test_errors_of_backbones(fusion, exchange, text):
    with pytest.raises(ValueError, match=text):
        MODELS.build(segmenter(fusion, exchange))


def test_private_convs_beside_a_merge():
    own = "fusion with merge=True gives streams their own .* leave convs='private' out"
    fusion = dict(type='ConcatFusion', after=(1,), merge=True)
    with pytest.raises(ValueError, match=own):
        MODELS.build(segmenter(fusion, convs='private'))
    with pytest.raises(ValueError, match=own):
        MODELS.build(translator(dict(exchange=False, fusion=fusion), convs='private'))


def test_errors_of_generators():
    fusion = dict(type='ConcatFusion', after=(1,))
    with pytest.raises(ValueError, match='fusion is there in place of exchange'):
        MODELS.build(translator(dict(fusion=fusion)))
    with pytest.raises(ValueError, match=r'fusion after layer \[9\]: give numbers of 1 to 4'):
        MODELS.build(translator(dict(exchange=False, fusion=dict(fusion, after=(9,)))))
    two = dict(rgb=['normal'], reshading=['normal'])
    with pytest.raises(ValueError, match="convs='private', and fusion .* are for one task"):
        MODELS.build(translator(dict(exchange=False), tasks=two, convs='private'))
    with pytest.raises(ValueError, match="convs must be 'shared' or 'private', got 'own'"):
        MODELS.build(translator(dict(exchange=False), convs='own'))
