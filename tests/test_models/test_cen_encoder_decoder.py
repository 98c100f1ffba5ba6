"""The segmentor: any head and backbone of mmseg, losses by hand, inference modes, complaints."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

from mmcen.core import PrivateCopies, exchange_norms
from mmcen.layers import ExchangeNorm
from tests.specs import modality_list

NORM = {'type': 'CENBN', 'threshold': 2e-2}
STATS = {
    'rgb': {'mean': [120.0] * 3, 'std': [60.0] * 3},
    'depth': {'mean': [0.0], 'std': [5.0]},
    'normal': {'mean': [0.0] * 3, 'std': [1.0] * 3},
}
RESNET = {'type': 'CENResNet', 'depth': 18, 'norm_cfg': NORM, 'norm_eval': False}
FCN = {
    'type': 'FCNHead',
    'in_channels': 512,
    'in_index': 3,
    'channels': 8,
    'num_convs': 1,
    'concat_input': False,
}
HEADS = {
    'PSPHead': {'in_channels': 512, 'in_index': 3, 'channels': 8, 'pool_scales': (1, 2)},
    'ASPPHead': {'in_channels': 512, 'in_index': 3, 'channels': 8, 'dilations': (1, 2)},
    'UPerHead': {
        'in_channels': [64, 128, 256, 512],
        'in_index': [0, 1, 2, 3],
        'channels': 8,
        'pool_scales': (1, 2),
    },
    'FCNHead': {
        'in_channels': 512,
        'in_index': 3,
        'channels': 8,
        'num_convs': 1,
        'concat_input': False,
    },
    'SegformerHead': {'in_channels': [64, 128, 256, 512], 'in_index': [0, 1, 2, 3], 'channels': 8},
}
BRANCHES = [
    {
        'num_modules': 1,
        'num_branches': n,
        'block': 'BASIC',
        'num_blocks': (1,) * n,
        'num_channels': (4, 8, 16, 32)[:n],
    }
    for n in (2, 3, 4)
]
HRNET = dict(
    stage1={
        'num_modules': 1,
        'num_branches': 1,
        'block': 'BOTTLENECK',
        'num_blocks': (1,),
        'num_channels': (8,),
    },
    **{f'stage{i}': cfg for i, cfg in enumerate(BRANCHES, 2)},
)
BACKBONES = {
    'HRNet': ({'extra': HRNET, 'norm_eval': False}, 4, 0),
    'MobileNetV2': ({'widen_factor': 0.25, 'out_indices': (1, 6)}, 80, 1),
    'UNet': ({'base_channels': 4, 'num_stages': 3, 'strides': (1,) * 3, 'enc_num_convs': (1,) * 3,
                  'dec_num_convs': (1,) * 2, 'downsamples': (True,) * 2, 'enc_dilations': (1,) * 3,
                  'dec_dilations': (1,) * 2}, 4, 2),
}  # fmt: skip


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')
    torch.manual_seed(0)


def build(modalities=('rgb', 'depth'), backbone=None, head=None, test_cfg=None, **kwargs):
    head = {'num_classes': 5, 'norm_cfg': NORM, **(head or FCN)}
    return MODELS.build(
        ConfigDict(
            type='CENEncoderDecoder',
            data_preprocessor={
                'type': 'CENDataPreprocessor',
                'modalities': modality_list({m: STATS[m] for m in modalities}),
                'size_divisor': 1,
            },
            backbone=backbone or RESNET,
            decode_head=head,
            train_cfg={},
            test_cfg=test_cfg or {'mode': 'whole'},
            **kwargs,
        )
    )


def samples(batch=2, size=(64, 64)):
    result = []
    for _ in range(batch):
        sample = SegDataSample(
            metainfo={'ori_shape': size, 'img_shape': size, 'pad_shape': size, 'img_path': 'x.png'}
        )
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 5, (1, *size)))
        result.append(sample)
    return result


@pytest.mark.parametrize('name', HEADS)
def test_any_head_of_mmseg(name):
    model = build(
        head=dict(type=name, **HEADS[name]),
        auxiliary_head=dict(num_classes=5, norm_cfg=NORM, **FCN),
    )
    inputs = torch.randn(2, 6, 64, 64)
    losses = model.loss(inputs, samples())
    expected = {f'decode.{s}.loss_ce' for s in ('ensemble', 'rgb', 'depth')}
    expected |= {f'aux_0.{s}.loss_ce' for s in ('rgb', 'depth')}
    assert {k for k in losses if 'loss' in k} == expected
    model.parse_losses(losses)[0].backward()
    assert all(p.grad is not None for p in model.parameters())
    # exchange lives in the encoder; heads have private norms that do not exchange
    assert {n.split('.')[0] for n, _ in exchange_norms(model)} == {'backbone'}
    assert all(
        m.grid == model.grid for m in model.decode_head.modules() if isinstance(m, ExchangeNorm)
    )
    prediction = model.eval().predict(inputs, samples())[0]
    assert prediction.pred_sem_seg.shape == (64, 64)
    assert prediction.outputs.semseg.keys() == ['ensemble', 'rgb', 'depth']


OFF = {
    'norm_cfg': (dict(NORM, exchange=False), None),
    'exchange': (dict(type='BN'), dict(after=None)),
}


@pytest.mark.parametrize('way', OFF)
@pytest.mark.parametrize('name', BACKBONES)
def test_any_backbone(name, way):
    """Without exchange, each folded stream is exactly the stock one-stream backbone with that
    stream's norms."""
    cfg, channels, index = BACKBONES[name]
    head = dict(FCN, in_channels=channels, in_index=index)
    norm_cfg, exchange = OFF[way]
    backbone = dict(type=name, norm_cfg=norm_cfg, **cfg)
    model = build(backbone=backbone, head=head, exchange=exchange).eval()
    assert not list(exchange_norms(model))
    norms = {n: m for n, m in model.backbone.named_modules() if isinstance(m, ExchangeNorm)}
    for norm in norms.values():
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        norm.norm.running_mean.normal_()
    inputs = torch.randn(2, 6, 64, 64)
    features = model.grid.unfold(model.extract_feat(inputs)[index])[:, 0]
    for m in range(2):
        stock = MODELS.build(dict(type=name, norm_cfg={'type': 'BN'}, **cfg))
        stock.eval()  # mmseg's train() returns nothing
        state = {}
        for key, value in model.backbone.state_dict().items():
            layer = key.rsplit('.norm.', 1)[0]
            if layer in norms and value.dim():
                width = norms[layer].num_features
                value = value[m * width : (m + 1) * width]
            state[key.replace('.norm.', '.')] = value
        stock.load_state_dict(state)
        expected = stock(inputs.view(2, 2, 3, 64, 64)[:, m])[index]
        torch.testing.assert_close(features[:, m], expected, rtol=1e-4, atol=1e-5)
    for rule in (dict(after='every'), None):
        exchanging = build(backbone=dict(type=name, norm_cfg=NORM, **cfg), head=head, exchange=rule)
        found = dict(exchange_norms(exchanging.backbone))
        assert len(found) == len(norms) if rule else 0 < len(found) < len(norms)
        assert {norm.selection.threshold for norm in found.values()} == {NORM['threshold']}


@pytest.mark.parametrize(('name', 'count'), [('BiSeNetV2', 53), ('PIDNet', 73)])
def test_backbones_that_make_norms_of_their_own(name, count):
    """They do not pass norm_cfg on; their norms are private all the same."""
    with torch.device('meta'):
        model = build(backbone={'type': name, 'norm_cfg': NORM})
    norms = [m for m in model.backbone.modules() if isinstance(m, ExchangeNorm)]
    assert len(norms) == count
    assert {id(norm.grid) for norm in norms} == {id(model.grid)}
    inside = {m for norm in norms for m in norm.modules()}
    assert not [
        m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d) and m not in inside
    ]
    assert list(exchange_norms(model.backbone))


def test_options_of_exchange():
    """A norm's own go before those of the segmentor."""
    options = dict(after='spatial', threshold=0.3, region='all', inside=['layer2'])
    stock = build(backbone=dict(RESNET, norm_cfg={'type': 'BN'}), exchange=options)
    found = dict(exchange_norms(stock))
    # 'spatial' takes what CENResNet's own rule takes, inside a stage of basic blocks
    assert list(found) == [f'backbone.layer2.{b}.bn{i}' for b in (0, 1) for i in (1, 2)]
    assert {norm.selection.threshold for norm in found.values()} == {0.3}
    own = dict(exchange_norms(build(exchange=options)))
    assert list(own) == list(found)
    assert {norm.selection.threshold for norm in own.values()} == {NORM['threshold']}
    for norm in (*found.values(), *own.values()):
        assert norm.selection.region == 'all'


def test_parts_that_streams_do_not_share():
    model = build(exchange=dict(private=['conv1']))
    first = model.backbone.conv1
    assert isinstance(first, PrivateCopies)
    model.loss(torch.randn(2, 6, 64, 64), samples())['decode.rgb.loss_ce'].backward()
    gradients = [copy.weight.grad for copy in first.copies]
    assert gradients[0].abs().sum() > 0
    assert gradients[1] is None or not gradients[1].any()


@pytest.mark.parametrize('modalities', [('rgb',), ('rgb', 'depth'), ('rgb', 'depth', 'normal')])
def test_losses_by_hand(modalities):
    """Cross entropy on every stream and the ensemble; the ensemble trains its scores alone."""
    model = build(modalities).eval()  # no dropout, frozen statistics
    nn.init.normal_(model.ensemble.alpha)
    inputs, batch = torch.randn(2, 3 * len(modalities), 64, 64), samples()
    losses = model.loss(inputs, batch)
    label = torch.cat([s.gt_sem_seg.data for s in batch])
    raw = model.forward(inputs, mode='tensor')
    assert list(raw) == ['ensemble', *modalities]
    alpha = model.ensemble.alpha.softmax(-1)[0]
    ensemble = sum(a * raw[m] for a, m in zip(alpha, modalities, strict=True))
    for name, logits in {**{m: raw[m] for m in modalities}, 'ensemble': ensemble}.items():
        logits = F.interpolate(logits, (64, 64), mode='bilinear', align_corners=False)
        torch.testing.assert_close(losses[f'decode.{name}.loss_ce'], F.cross_entropy(logits, label))
    losses['decode.ensemble.loss_ce'].backward()
    trained = {
        n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert trained == ({'ensemble.alpha'} if len(modalities) > 1 else set())


def test_whole_and_slide_agree_and_label_is_not_needed():
    torch.manual_seed(0)
    model = build().eval()
    inputs = torch.randn(1, 6, 64, 96)
    whole = model.predict(inputs)[0]
    assert whole.seg_logits.data.shape == (5, 64, 96)
    model.test_cfg.update(mode='slide', crop_size=(64, 96), stride=(32, 32))
    slide = model.predict(inputs)[0]
    torch.testing.assert_close(slide.seg_logits.data, whole.seg_logits.data)
    torch.testing.assert_close(
        slide.outputs.semseg.depth.seg_logits.data, whole.outputs.semseg.depth.seg_logits.data
    )
    model.test_cfg.update(crop_size=(64, 64))
    slid = model.predict(inputs)[0]  # two overlapping windows, averaged where they overlap
    left = model.predict(inputs[..., :64])[0]
    torch.testing.assert_close(slid.seg_logits.data[..., :32], left.seg_logits.data[..., :32])


def test_augmented_predictions_are_merged_for_each_stream():
    """Mean of softmax over a frame and its mirror image, turned back; by hand, stream by stream."""
    model = build().eval()
    inputs = {'rgb': 255 * torch.rand(3, 64, 96), 'depth': 5 * torch.rand(1, 64, 96)}
    meta = dict(ori_shape=(64, 96), img_shape=(64, 96), pad_shape=(64, 96), img_path='x.png')
    plain = SegDataSample(metainfo=dict(meta, flip=False))
    mirrored = SegDataSample(metainfo=dict(meta, flip=True, flip_direction='horizontal'))
    flipped = {name: value.flip(-1) for name, value in inputs.items()}
    data = dict(
        inputs=[{k: [v] for k, v in frame.items()} for frame in (inputs, flipped)],
        data_samples=[[plain], [mirrored]],
    )
    merged = MODELS.build(dict(type='CENSegTTAModel', module=model)).test_step(data)[0]

    def logits(frame):
        batch = model.data_preprocessor(dict(inputs={k: [v] for k, v in frame.items()}))['inputs']
        raw = model.forward(batch, mode='tensor')
        return {k: F.interpolate(v, (64, 96), mode='bilinear') for k, v in raw.items()}

    with torch.no_grad():
        first, second = logits(inputs), logits(flipped)
    for name in ('ensemble', 'rgb', 'depth'):
        mean = first[name].softmax(1) + second[name].flip(-1).softmax(1)
        found = merged.outputs.semseg.get(name).pred_sem_seg.data
        assert (found.squeeze() == mean.argmax(1)[0]).float().mean() > 0.999  # ties by rounding


def test_streams_on_request():
    torch.manual_seed(0)
    full = build().eval()
    model = build(test_cfg={'mode': 'whole', 'streams': False}).eval()
    model.load_state_dict(full.state_dict())
    inputs = torch.randn(1, 6, 64, 64)
    prediction = model.predict(inputs)[0]
    assert prediction.outputs.semseg.keys() == ['ensemble']
    torch.testing.assert_close(prediction.seg_logits.data, full.predict(inputs)[0].seg_logits.data)


TURNS = {
    'plain': {},
    'resized': {'ori_shape': (100, 131)},
    'smaller': {'ori_shape': (40, 50)},
    'padded': {'ori_shape': (90, 120), 'img_padding_size': (0, 16, 0, 8)},
    'padded by the preprocessor': {'ori_shape': (90, 120), 'padding_size': (0, 16, 4, 4)},
    'mirrored': {'ori_shape': (100, 131), 'flip': True, 'flip_direction': 'horizontal'},
    'upside down': {'flip': True, 'flip_direction': 'vertical', 'padding_size': [0, 0, 0, 9]},
}


@pytest.mark.parametrize('turn', TURNS)
@pytest.mark.parametrize('mode', ['whole', 'slide', 'align_corners'])
def test_labels_without_logits(turn, mode):
    """The labels that mmseg takes from logits at full size, of the ensemble and every stream."""
    model = build(head=dict(FCN, align_corners=mode == 'align_corners')).eval()
    if mode == 'slide':
        model.test_cfg.update(mode='slide', crop_size=(48, 64), stride=(32, 32))
    inputs = torch.randn(2, 6, 64, 96)

    def predict(logits):
        model.test_cfg.logits = logits
        batch = samples(size=(64, 96))
        for sample in batch:
            sample.set_metainfo(TURNS[turn])
        with torch.no_grad():
            return model.predict(inputs, batch)

    for plain, full in zip(predict(False), predict(True), strict=True):
        for name in ('ensemble', 'rgb', 'depth'):
            found, wanted = (sample.outputs.semseg.get(name) for sample in (plain, full))
            assert 'seg_logits' not in found
            labels = found.pred_sem_seg.data
            assert labels.shape == wanted.pred_sem_seg.data.shape == (1, *plain.ori_shape)
            assert labels.dtype == wanted.pred_sem_seg.data.dtype
            logits = wanted.seg_logits.data
            assert (logits.gather(0, labels)[0] >= logits.amax(0) - 1e-5).all()
            assert (labels == wanted.pred_sem_seg.data).float().mean() > 0.999


@pytest.mark.parametrize('out_channels', [1, 2])
def test_two_classes(out_channels):
    """By a threshold on one logit, which is kept, or by the larger one of two."""
    head = dict(FCN, num_classes=2, out_channels=out_channels, threshold=0.3)
    model = build(head=head).eval()
    batch = samples(size=(64, 96))
    for sample in batch:
        sample.set_metainfo({'ori_shape': (100, 131)})
    inputs = torch.randn(2, 6, 64, 96)
    with torch.no_grad():
        raw = model.forward(inputs, mode='tensor')['depth']
        found = model.predict(inputs, batch)[1].outputs.semseg.depth
    for size in ((64, 96), (100, 131)):
        raw = F.interpolate(raw, size, mode='bilinear')
    expected = raw[1].sigmoid() > 0.3 if out_channels == 1 else raw[1].argmax(0, keepdim=True)
    assert (found.pred_sem_seg.data == expected).float().mean() > 0.999
    assert ('seg_logits' in found) == (out_channels == 1)


def test_a_flip_in_no_direction():
    batch = samples()
    batch[0].set_metainfo({'flip': True, 'flip_direction': 'diagonal'})
    with pytest.raises(ValueError, match="flip_direction must be one of .*, got 'diagonal'"):
        build().eval().predict(torch.randn(2, 6, 64, 64), batch)


@pytest.mark.parametrize(
    'make, message',
    [
        (
            lambda: build(backbone=dict(RESNET, norm_cfg={'type': 'CENBN', 'modalities': 3})),
            r'a norm was made for .*modalities=3\), the network is converted to .*modalities=2\): '
            'leave tasks and modalities out of norm_cfg',
        ),
        (
            lambda: build(exchange={'inside': ['layer5']}),
            "inside: CENResNet has no part 'layer5', its parts are conv1",
        ),
        (
            lambda: build(exchange={'after': 'all'}),
            "exchange must be one of .*, a callable or None, got 'all'",
        ),
        (
            lambda: build().extract_feat(torch.zeros(1, 3, 64, 64)),
            r'expected \(B, 2 \* C, H, W\) for the modalities .*, got \(1, 3, 64, 64\)',
        ),
    ],
)
def test_complaints(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_modality_cannot_be_named_ensemble():
    modalities = modality_list({'ensemble': STATS['rgb']})
    with pytest.raises(ValueError, match="modality 'ensemble' cannot be used as a name"):
        MODELS.build(
            {
                'type': 'CENEncoderDecoder',
                'backbone': RESNET,
                'decode_head': {'num_classes': 5, **FCN},
                'data_preprocessor': {'type': 'CENDataPreprocessor', 'modalities': modalities},
            }
        )
