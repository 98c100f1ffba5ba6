"""A stranger's file executes nothing, writes nowhere else, and takes no memory before a check.

Each attack is first shown to work on the part of OpenMMLab, Pillow or NumPy that it aims at.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, TRANSFORMS
from mmengine.runner.checkpoint import load_checkpoint
from mmseg.apis import init_model
from PIL import Image

from mmcen.apis import CENInferencer
from mmcen.checkpoints import read_checkpoint
from mmcen.converters.archives import Archive, decode
from mmcen.datasets.transforms import reading
from mmcen.datasets.transforms.reading import read_array
from mmcen.deploy import OnnxNetwork

from .fuzz.world import small_graph
from .test_cli.test_tools import config, run  # noqa: F401  fixtures

onnx = pytest.importorskip('onnx')
MAKE = {'type': 'os.mkdir', 'path': 'executed'}
CODE = "a = __import__('os').mkdir('executed')\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path('executed').exists()


def works(attack):
    """Show that the attack works without the check."""
    with suppress(Exception):  # after the damage is done
        attack()
    Path('executed').rmdir()


class Payload:
    def __reduce__(self):
        import os

        return os.mkdir, ('executed',)


FACTS = {
    'inputs': {'rgb': 3},
    'outputs': ['ensemble'],
    'images': [],
    'divisor': 1,
    'config': {'test_dataloader': {'dataset': {'modalities': {}, 'metainfo': {}}}},
}


def write_onnx(facts, inputs=('rgb',), outputs=('ensemble',)):
    """A graph that hands its input on, and says of itself what is given."""
    shape = ['b', 3, 'h', 'w']
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node('Identity', [inputs[0]], [name]) for name in outputs],
        'g',
        [tensor(name, onnx.TensorProto.FLOAT, shape) for name in inputs],
        [tensor(name, onnx.TensorProto.FLOAT, shape) for name in outputs],
    )
    proto = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid('', 17)], ir_version=8
    )
    onnx.helper.set_model_props(
        proto, {'mmcen': facts if isinstance(facts, str) else json.dumps(facts)}
    )
    onnx.save(proto, 'a.onnx')
    return 'a.onnx'


def with_pipeline(*stages):
    dataset = {'modalities': {}, 'metainfo': {}, 'pipeline': list(stages)}
    return FACTS | {'config': {'test_dataloader': {'dataset': dataset}}}


def test_a_damaged_onnx_file_is_refused():
    """Its weights have no checksum of their own: a flipped bit gives other predictions."""
    data = small_graph().SerializeToString()
    Path('whole.onnx').write_bytes(data)
    OnnxNetwork('whole.onnx')
    place = data.index(np.float32(0.34558418).tobytes()) + 3
    flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    Path('flipped.onnx').write_bytes(flipped)
    with pytest.raises(ValueError, match=r'flipped\.onnx is damaged, its checksum is wrong: copy'):
        OnnxNetwork('flipped.onnx')


def test_the_file_without_an_attack_predicts():
    inferencer = CENInferencer(write_onnx(FACTS), show_progress=False)
    (found,) = inferencer(dict(rgb=np.eye(4, dtype=np.uint8)))['predictions']
    assert found.outputs['ensemble'].shape == (4, 4)


@pytest.mark.parametrize(
    'stages',
    [
        [MAKE],
        [{'type': 'ForEachModality', 'transforms': [MAKE]}],
        [{'type': 'PackModalities', 'meta_keys': [MAKE]}],
        [{'type': 'PackModalities', 'meta_keys': MAKE}],
        [{'type': 'mmengine.fileio.rmtree', 'dir_path': '.'}],
        [{'type': 'mmseg.Resize', 'scale': [8, 8]}],  # a scope is a module to import
        [{'type': 'Resize', 'scale': [8, 8], 'backend': 'os'}],
        [{'type': 'ForEachModality', 'transforms': [{'type': 'Resize', 'scale': [1e9, 1e9]}]}],
        [{'type': ['PackModalities']}],
        'PackModalities',
    ],
)
def test_a_pipeline_in_an_onnx_file(stages):
    works(lambda: TRANSFORMS.build(dict(MAKE)))
    dataset = {'modalities': {}, 'metainfo': {}, 'pipeline': stages}
    facts = FACTS | {'config': {'test_dataloader': {'dataset': dataset}}}
    with pytest.raises(ValueError, match=r'the metadata of a\.onnx do not hold \('):
        CENInferencer(write_onnx(facts))


def test_other_types_and_scopes_in_an_onnx_file_are_left_out():
    facts = json.loads(json.dumps(FACTS))
    facts['config'] |= {'default_scope': 'os', 'custom_imports': {'imports': ['antigravity']}}
    facts['config']['test_dataloader']['dataset'] |= MAKE
    CENInferencer(write_onnx(facts))


@pytest.mark.parametrize('name', ['../up', '/up', 'a/../../up', 'a/b/c', '..', '.', '', 'a\n', 3])
def test_an_output_never_leaves_the_folder(name):
    facts = FACTS | {'outputs': [name]}
    with pytest.raises(ValueError, match='is no name of an input or output'):
        OnnxNetwork(write_onnx(facts, outputs=[str(name) or 'x']))


@pytest.mark.parametrize(
    'facts, message',
    [
        ('{', 'the metadata of a.onnx do not hold'),
        ('null', 'they are no JSON object'),
        ('[' * 100_000, 'the metadata of a.onnx do not hold'),
        (FACTS | {'inputs': {'rgb': 1}}, r"but the graph has {'rgb': \[3\]}"),
        (FACTS | {'inputs': {'depth': 3}}, r"but the graph has {'rgb': \[3\]}"),
        (FACTS | {'outputs': ['depth']}, r"but the graph has \['ensemble'\]"),
        (FACTS | {'outputs': ['ensemble'] * 2}, 'must be some of the outputs'),
        (FACTS | {'images': ['rgb']}, 'must be some of the outputs'),
        (FACTS | {'divisor': 0}, 'divisor must be a whole number of 1 or more, got 0'),
        (FACTS | {'palette': [[0, 0, 999]]}, 'palette'),
        (FACTS | {'config': 3}, 'config does not say how files are read'),
        (
            {k: v for k, v in FACTS.items() if k != 'outputs'},
            'outputs, images and labels must be lists',
        ),
        (FACTS | {'labels': ['rgb']}, 'must be outputs that are no images'),
        (FACTS | {'labels': ['ensemble']}, r'ensemble is no label map \(B, H, W\) in the graph'),
    ],
)
def test_metadata_that_do_not_hold(facts, message):
    with pytest.raises(ValueError, match=message):
        OnnxNetwork(write_onnx(facts))


def test_outputs_are_taken_by_name():
    """Another order in the file than in its metadata changes nothing."""
    shape = ['b', 3, 'h', 'w']
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node('Identity', ['rgb'], ['rgb_out']),
            onnx.helper.make_node('Neg', ['rgb'], ['ensemble']),
        ],
        'g',
        [tensor('rgb', onnx.TensorProto.FLOAT, shape)],
        [tensor(n, onnx.TensorProto.FLOAT, shape) for n in ('rgb_out', 'ensemble')],
    )
    proto = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid('', 17)], ir_version=8
    )
    facts = FACTS | {'outputs': ['ensemble', 'rgb']}
    onnx.helper.set_model_props(proto, {'mmcen': json.dumps(facts)})
    onnx.save(proto, 'a.onnx')
    ensemble, rgb = OnnxNetwork('a.onnx')(torch.ones(1, 3, 2, 2))
    assert (ensemble == -1).all()
    assert (rgb == 1).all()


@pytest.mark.parametrize('key', ['config', 'cfg'])
def test_the_config_in_a_checkpoint_is_not_executed(run, config, capsys, key):  # noqa: F811
    works(lambda: Config.fromstring(CODE, '.py'))
    run('train', config, '--cfg-options', 'train_cfg.max_epochs=1')
    path = Path('work_dirs/toy/epoch_1.pth')
    checkpoint = torch.load(path, weights_only=True)
    checkpoint['meta'][key] = CODE
    torch.save(checkpoint, path)
    run('train', config, '--resume')
    assert 'resumed epoch: 1, iter: 4' in capsys.readouterr().out


def evil_pickle():
    torch.save({'state_dict': {'weight': Payload()}}, 'evil.pth')
    return 'evil.pth'


def evil_legacy():
    Path('evil.pth').write_bytes(pickle.dumps(Payload()))
    return 'evil.pth'


@pytest.mark.parametrize('make', [evil_pickle, evil_legacy])
def test_a_checkpoint_that_executes(make, monkeypatch):
    """By every way that a checkpoint comes in, whatever the environment says."""
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    evil = make()
    works(lambda: torch.load(evil, weights_only=False))
    pretrained = dict(
        type='ResNet', depth=18, in_channels=3, init_cfg=dict(type='Pretrained', checkpoint=evil)
    )
    stock = Config.fromfile(Path(__file__).parents[1] / 'configs/cen/rooms_lwrefinenet_r18.py')
    for way in (
        lambda: read_checkpoint(evil),
        lambda: load_checkpoint(torch.nn.Linear(1, 1), evil),
        lambda: MODELS.build(pretrained).init_weights(),
        lambda: init_model(stock, evil, 'cpu'),
    ):
        with pytest.raises(ValueError, match='is no checkpoint of tensors and numbers'):
            way()


def png_bomb():
    """A picture of 60000x60000 pixels in a few bytes of file."""

    def part(kind, data):
        checksum = zlib.crc32(kind + data)
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', checksum)

    header = struct.pack('>IIBBBBB', 60_000, 60_000, 8, 2, 0, 0, 0)
    rows = part(b'IDAT', zlib.compress(bytes(1000)))
    return reading.PNG_START + part(b'IHDR', header) + rows + part(b'IEND', b'')


def tiff_bomb():
    buffer = io.BytesIO()
    Image.new('L', (4, 4)).save(buffer, 'TIFF')
    data = buffer.getvalue()
    for tag in (256, 257):  # width and height
        small, huge = (struct.pack('<HHII', tag, 4, 1, size) for size in (4, 60_000))
        assert small in data
        data = data.replace(small, huge)
    return data


def npy_bomb():
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, dict(descr='<f8', fortran_order=False, shape=(10**6, 10**6))
    )
    return buffer.getvalue() + bytes(64)


@pytest.mark.parametrize(
    'name, make, message',
    [
        (
            'a.png',
            png_bomb,
            '60000x60000 pixels, more than 178956970: set the environment variable',
        ),
        ('a.tif', tiff_bomb, 'exceeds limit|60000x60000 pixels'),
        ('a.npy', npy_bomb, r'8000000000000 bytes, and 64 follow'),
    ],
)
def test_bombs_take_no_memory(name, make, message):
    Path(name).write_bytes(make())
    tracemalloc.start()
    with pytest.raises(ValueError, match=message):
        read_array(name)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_bombs_in_archives(monkeypatch):
    with zipfile.ZipFile('a.zip', 'w', zipfile.ZIP_DEFLATED) as file:
        file.writestr('top/a.npy', bytes(2**24))
    archive = Archive(Path(), 'top', 'a.zip')
    assert len(archive.read('a.npy')) == 2**24
    monkeypatch.setattr(reading, 'MAX_PIXELS', 1000)
    tracemalloc.start()
    message = r'a\.zip: a\.npy cannot be read \(it has 16777216 bytes unpacked, more than 8000: set'
    with pytest.raises(ValueError, match=message):
        archive.read('a.npy')
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    with pytest.raises(ValueError, match=r'a\.png cannot be read \(Image size .* exceeds limit'):
        decode(png_bomb(), 'a.png', 'uint8', (3,))


def test_the_limit_can_be_raised(monkeypatch):
    Image.new('L', (40, 40)).save('a.png')
    monkeypatch.setattr(reading, 'MAX_PIXELS', 1000)
    with pytest.raises(ValueError, match='it claims 40x40 pixels, more than 1000'):
        read_array('a.png')
    monkeypatch.setattr(reading, 'MAX_PIXELS', 1600)
    assert read_array('a.png').shape == (40, 40)


def test_a_checkpoint_that_would_unfold():
    torch.save({'state_dict': {'w': torch.zeros(10**6)}}, 'a.pth')
    with zipfile.ZipFile('a.pth') as plain, zipfile.ZipFile('b.pth', 'w', 8) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    with pytest.raises(ValueError, match='its entries are compressed, which torch never writes'):
        read_checkpoint('b.pth')
