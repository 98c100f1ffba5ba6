"""Configs that mmsegmentation ships, unchanged but for width, train with streams that exchange."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.models.backbones.swin import ShiftWindowMSA
from mmseg.structures import SegDataSample

from mmcen.core import ExchangeNorm
from mmcen.deploy import as_it_is, export_onnx
from mmcen.deploy.windows import follow_sizes

HEADER = """
_base_ = 'mmseg::{config}'
custom_imports = dict(imports=['mmcen'])
modalities = [
    dict(name='rgb', mean=[124.0, 116.0, 104.0], std=[58.0, 57.0, 57.0]),
    dict(name='depth', mean=[2.8], std=[1.6]),
]
model = dict(
    type='CENEncoderDecoder',
    exchange=dict(after='{after}', threshold=0.95),
    data_preprocessor=dict(type='CENDataPreprocessor', modalities=modalities, size=None),
)
"""
NAMES = {
    'SegFormer': ('segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py', 'norm'),
    'Swin UPerNet': (
        'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
        'norm',
    ),
    'Twins UPerNet': ('twins/twins_svt-s_uperhead_8xb2-160k_ade20k-512x512.py', 'norm'),
    'ViT UPerNet': ('vit/vit_deit-s16_upernet_8xb2-160k_ade20k-512x512.py', 'norm'),
    'SegNeXt': ('segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512.py', 'norm'),
    'PIDNet': ('pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py', 'spatial'),
    'BiSeNetV2': ('bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024.py', 'depthwise'),
    'MobileNetV3 LRASPP': (
        'mobilenet_v3/mobilenet-v3-d8_lraspp_4xb4-320k_cityscapes-512x1024.py',
        'depthwise',
    ),
    'DeepLabV3+': ('deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024.py', 'spatial'),
    'HRNet FCN': ('hrnet/fcn_hr18s_4xb2-160k_cityscapes-512x1024.py', 'spatial'),
    'K-Net': ('knet/knet-s3_r50-d8_deeplabv3_8xb2-adamw-80k_ade20k-512x512.py', 'spatial'),
}


def build(tmp_path, config, after, options=None):
    path = tmp_path / 'config.py'
    path.write_text(HEADER.format(config=config, after=after))
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(options or {})
    cfg = cfg.model
    forget_pretrained(cfg)
    init_default_scope('mmseg')
    model = MODELS.build(cfg)
    model.init_weights()
    return model


def forget_pretrained(cfg):
    """There is no network; weights load in tests/test_core."""
    if isinstance(cfg, dict):
        if cfg.get('pretrained'):
            cfg.pretrained = None
        if isinstance(cfg.get('init_cfg'), dict) and cfg.init_cfg.type == 'Pretrained':
            cfg.init_cfg = None
        for value in cfg.values():
            forget_pretrained(value)
    elif isinstance(cfg, (list, tuple)):
        for value in cfg:
            forget_pretrained(value)


def batch(count, size):
    samples = []
    for _ in range(count):
        sample = SegDataSample(
            gt_sem_seg=PixelData(data=torch.randint(0, 5, (1, size, size))),
            metainfo=dict(img_shape=(size, size), ori_shape=(size, size)),
        )
        edges = torch.randint(0, 2, (1, size, size))
        sample.gt_edge_map = PixelData(data=edges)  # PIDNet's
        samples.append(sample)
    inputs = dict(
        rgb=[torch.rand(3, size, size) * 255 for _ in samples],
        depth=[torch.rand(1, size, size) * 5 for _ in samples],
    )
    return dict(inputs=inputs, data_samples=samples)


SHORT = ('SegFormer', 'BiSeNetV2', 'DeepLabV3+')


@pytest.mark.parametrize(
    'name',
    [pytest.param(name, marks=() if name in SHORT else pytest.mark.long) for name in NAMES],
)
def test_two_steps_and_a_prediction(name, tmp_path):
    torch.manual_seed(0)
    model = build(tmp_path, *NAMES[name])
    size = 400 if 'LRASPP' in name else 64  # its head pools 49x49 features of stride 8
    norms = [m for m in model.modules() if isinstance(m, ExchangeNorm)]
    assert {m.grid.sizes for m in norms} == {(1, 2)}
    assert len({id(m.grid) for m in norms}) == 1
    exchanging = [m for m in norms if m.exchanges]
    assert exchanging
    assert not any(m in set(model.decode_head.modules()) for m in exchanging)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(2):
        data = model.data_preprocessor(batch(2, size), True)
        losses = model(**data, mode='loss')
        values = {k: v for k, v in losses.items() if 'loss' in k}
        for stream in ('ensemble', 'rgb', 'depth'):
            assert any(key.startswith(f'decode.{stream}.') for key in values), list(values)
        total = sum(v if isinstance(v, torch.Tensor) else sum(v) for v in values.values())
        assert torch.isfinite(total)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    missing = [n for n, p in model.backbone.named_parameters() if p.grad is None]
    assert len(missing) < len(list(model.backbone.parameters())) / 2
    model.eval()
    with torch.no_grad():
        sample = model.test_step(batch(1, size))[0]
    assert sample.pred_sem_seg.data.shape == (1, size, size)
    assert sample.outputs.semseg.rgb.pred_sem_seg.data.shape == (1, size, size)


@pytest.mark.long
@pytest.mark.parametrize('name', ['SegFormer', 'Swin UPerNet'])
def test_networks_with_layer_norms_are_exported(name, tmp_path):
    """ONNX Runtime agrees with PyTorch at two sizes and two batches, or export_onnx raises."""
    pytest.importorskip('onnxruntime')
    torch.manual_seed(0)
    # each block of Swin takes the exporter seconds, so there are fewer; the third stage shifts
    fewer = {'model.backbone.depths': [1, 1, 2, 1]} if 'Swin' in name else {}
    model = build(tmp_path, *NAMES[name], fewer).eval()
    path = tmp_path / 'cen.onnx'
    assert export_onnx(model, path, ['ensemble'], (64, 64), whole=True) < 1e-4


def test_windows_for_export_are_those_of_swin(tmp_path):
    torch.manual_seed(0)
    fewer = {'model.backbone.depths': [2, 1, 1, 1]}
    model = build(tmp_path, *NAMES['Swin UPerNet'], fewer).eval()
    for part in model.backbone.modules():
        if isinstance(part, ShiftWindowMSA):
            torch.nn.init.normal_(part.w_msa.relative_position_bias_table)
    whole = as_it_is(model, ['rgb'])
    simple = follow_sizes(whole)
    assert not any(isinstance(part, ShiftWindowMSA) for part in simple.modules())
    frames = (torch.rand(2, 3, 101, 67) * 255, torch.rand(2, 1, 101, 67))
    with torch.no_grad():
        torch.testing.assert_close(simple(*frames), whole(*frames))
