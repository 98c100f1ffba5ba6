"""A small model with its data, checkpoint and ONNX file, which the cases damage."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

from mmcen.apis import CENInferencer
from mmcen.deploy import OnnxNetwork
from mmcen.deploy.fingerprint import fingerprint
from mmcen.deploy.onnx import CHECKSUM, METADATA

SIZE = (32, 64)  # that the tiny network takes
FRAMES = ('a', 'b', 'über')
CONFIG = """
modalities = [
    dict(name='rgb', suffix='.png', mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4]),
    dict(name='depth', unit='mm', mean=[2.8], std=[1.6], interpolation='nearest'),
]
pipeline = [dict(type='LoadModalities'), dict(type='LoadLabel'), dict(type='PackModalities')]
dataset = dict(
    type='RGBDFolderDataset', data_root='.', modalities=modalities, pipeline=pipeline,
    labels=dict(dir='labels', suffix='.png'),
    metainfo=dict(classes=('a', 'b', 'c'), palette=[[0, 0, 0], [200, 0, 0], [0, 200, 0]]))
train_dataloader = dict(
    batch_size=3, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True), dataset=dataset)
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dataset)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='StreamIoUMetric', iou_metrics=['mIoU'])
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
param_scheduler = [dict(type='LinearLR', start_factor=0.1, begin=0, end=2, by_epoch=False)]
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=1),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=2, max_keep_ckpts=1),
)
custom_hooks = [dict(type='SparsityHook', coefficient=0.001)]
model = dict(
    type='CENEncoderDecoder',
    exchange=dict(threshold=0.02),
    data_preprocessor=dict(type='CENDataPreprocessor', modalities=modalities, size=(32, 64)),
    backbone=dict(type='CENResNet', depth=18, base_channels=4),
    decode_head=dict(
        type='RefineNetHead', in_channels=[4, 8, 16, 32], channels=4, num_classes=3,
        light_weight=True),
)
default_scope = 'mmseg'
custom_imports = dict(imports=['mmcen'])
randomness = dict(seed=0)
env_cfg = dict(mp_cfg=dict(mp_start_method='fork'))
log_level = 'ERROR'
"""


@dataclass
class World:
    """Files in a folder, which is the current one, and what reading them gives.

    Attributes:
        folder: It holds ``rgb/``, ``depth/``, ``labels/``, ``own.py``, ``own.pth`` and
            ``own.onnx``.
        pictures: Bytes of a frame by modality and suffix.
        files: Bytes of config, checkpoint and ONNX file.
        state: Weights of the checkpoint.
        arrays: A frame, as stored.
        wanted: The ONNX file's prediction for ``arrays``.
    """

    folder: Path
    pictures: dict[str, dict[str, bytes]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    state: dict[str, torch.Tensor] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    wanted: dict[str, np.ndarray] = field(default_factory=dict)
    inferencer: Any = None


def make_world(folder: Path) -> World:
    """Write all files."""
    world = World(folder)
    draw = np.random.default_rng(0)
    height, width = SIZE
    slope = np.linspace(1500, 4000, width)[None] + np.linspace(0, 500, height)[:, None]
    depth = (slope + draw.integers(0, 50, SIZE)).astype(np.uint16)
    colour = draw.integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    world.arrays = dict(rgb=colour, depth=depth)
    world.pictures = dict(rgb=_colours(colour), depth=_depths(depth))
    label = Image.fromarray(draw.integers(0, 3, SIZE, dtype=np.uint8))
    for part in ('rgb', 'depth', 'labels', 'tmp'):
        Path(folder, part).mkdir()
    for frame in FRAMES:
        for part in ('rgb', 'depth'):
            Path(folder, part, f'{frame}.png').write_bytes(world.pictures[part]['.png'])
        label.save(Path(folder, 'labels', f'{frame}.png'))
    Path(folder, 'own.py').write_text(CONFIG)
    init_default_scope('mmseg')
    cfg = Config.fromfile(folder / 'own.py')
    torch.manual_seed(0)
    model: Any = MODELS.build(cfg.model)
    world.state = dict(model.state_dict())
    classes = dict(classes=('a', 'b', 'c'), palette=[[0, 0, 0], [200, 0, 0], [0, 200, 0]])
    meta = dict(epoch=1, iter=4, dataset_meta=classes)
    torch.save(
        dict(state_dict=world.state, meta=meta, optimizer={}, message_hub={}, param_schedulers=[]),
        folder / 'own.pth',
    )
    onnx.save(small_graph(), folder / 'own.onnx')
    for name in ('own.py', 'own.pth', 'own.onnx'):
        world.files[name] = Path(folder, name).read_bytes()
    world.inferencer = CENInferencer(OnnxNetwork(folder / 'own.onnx', 1), show_progress=False)
    (found,) = world.inferencer(world.arrays)['predictions']
    world.wanted = found.inputs | found.outputs
    return world


def _colours(array: np.ndarray) -> dict[str, bytes]:
    picture = Image.fromarray(array)
    grey = Image.fromarray(array[..., 0])
    return {
        '.png': encode(picture, 'PNG'),
        '.palette.png': encode(picture.convert('P'), 'PNG'),
        '.alpha.png': encode(picture.convert('RGBA'), 'PNG'),
        '.grey.png': encode(grey, 'PNG'),
        '.jpg': encode(picture, 'JPEG'),
        '.bmp': encode(picture, 'BMP'),
        '.tif': encode(picture, 'TIFF'),
        '.deflate.tif': encode(picture, 'TIFF', compression='tiff_adobe_deflate'),
        '.webp': encode(picture, 'WEBP', lossless=True),
        '.npy': npy(array),
    }


def _depths(array: np.ndarray) -> dict[str, bytes]:
    return {
        '.png': encode(Image.fromarray(array), 'PNG'),
        '.tif': encode(Image.fromarray(array), 'TIFF'),
        '.npy': npy(array),
        '.float.npy': npy((array / 1000).astype(np.float32)),
        '.float.tif': encode(Image.fromarray((array / 1000).astype(np.float32)), 'TIFF'),
        '.one.npy': npy(array[..., None]),
    }


def encode(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    """An array as a file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


FACTS: dict[str, Any] = {
    'inputs': {'rgb': 3, 'depth': 1},
    'outputs': ['ensemble', 'rgb', 'depth'],
    'images': [],
    'divisor': 4,
    'classes': ['a', 'b', 'c'],
    'palette': [[0, 0, 0], [200, 0, 0], [0, 200, 0]],
    'config': {
        'test_dataloader': {
            'dataset': {
                'modalities': [
                    {'name': 'rgb', 'suffix': '.png'},
                    {'name': 'depth', 'unit': {'uint16': 'mm', 'float32': 'm'}},
                ],
                'metainfo': {'classes': ['a', 'b', 'c']},
                'pipeline': [
                    {
                        'type': 'ForEachModality',
                        'transforms': [{'type': 'Pad', 'size_divisor': 4}],
                    },
                    {'type': 'PackModalities'},
                ],
            }
        }
    },
}


def small_graph(facts: Any = None) -> Any:
    """Three sums of weighted channels, as a file of ``mmcen export``."""
    tensor, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    weight = np.random.default_rng(1).normal(size=(3, 4, 1, 1)).astype(np.float32)
    parts = dict(w=weight, w_rgb=weight[:, :3], w_depth=weight[:, 3:])
    nodes = [
        node('Concat', ['rgb', 'depth'], ['both'], axis=1),
        node('Conv', ['both', 'w'], ['ensemble']),
        node('Conv', ['rgb', 'w_rgb'], ['rgb_out']),
        node('Conv', ['depth', 'w_depth'], ['depth_out']),
    ]
    ends = ['ensemble', 'rgb_out', 'depth_out']
    float32 = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        'g',
        [tensor(n, float32, ['b', c, 'h', 'w']) for n, c in (('rgb', 3), ('depth', 1))],
        [tensor(n, float32, ['b', 3, 'h', 'w']) for n in ends],
        [onnx.numpy_helper.from_array(value, name) for name, value in parts.items()],
    )
    opset = [onnx.helper.make_opsetid('', 17)]
    proto = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    text = json.dumps(FACTS if facts is None else facts)
    marks = {METADATA: text, CHECKSUM: fingerprint(proto.SerializeToString(), text)}
    onnx.helper.set_model_props(proto, marks)
    return proto
