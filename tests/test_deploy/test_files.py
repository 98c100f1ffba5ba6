"""Exported files: label maps, int8, size, and their scores on the test set."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mmcen.apis import CENInferencer
from mmcen.deploy import OnnxNetwork, export_onnx, int8
from mmcen.models.label_map import resize_labels
from tests.converters import command
from tests.test_apis.test_inferencer import FOLDERS, folder  # noqa: F401  (a fixture)
from tests.test_deploy.test_deploy import segmentor, trained

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')


@pytest.mark.parametrize('classes', [5, 1])
def test_label_maps_are_those_of_the_logits(tmp_path, classes):
    head = dict(type='FCNHead', in_channels=64, in_index=3, channels=4, num_convs=1, num_classes=5)
    if classes == 1:
        head |= dict(num_classes=2, out_channels=1, threshold=0.4)
    model = trained(segmentor(head=head | dict(norm_cfg=dict(type='BN'))))
    for labels in (False, True):
        export_onnx(model, tmp_path / f'{labels}.onnx', ['ensemble'], (64, 96), labels=labels)
    frames = [255 * torch.rand(2, c, 64, 32) for c in (3, 1)]
    (logits,), (found,) = (OnnxNetwork(tmp_path / f'{labels}.onnx')(*frames) for labels in (0, 1))
    wanted = logits.argmax(1) if classes > 1 else (logits[:, 0].sigmoid() > 0.4).long()
    assert (found.dtype, found.shape) == (torch.uint8, (2, 64, 32))
    assert torch.equal(found.long(), wanted)
    assert len(wanted.unique()) > 1


def test_a_file_has_the_weights_that_streams_share_once(tmp_path):
    model = trained(segmentor(streams=3))
    export_onnx(model, tmp_path / 'a.onnx', size=(64, 64))  # compares
    stored = onnx.load(tmp_path / 'a.onnx').graph.initializer
    numbers = sum(int(np.prod(one.dims)) for one in stored)
    assert numbers < 1.1 * sum(p.numel() for p in model.parameters())


def test_resized_labels_are_those_of_the_nearest_pixel():
    labels = torch.arange(6).view(2, 3)
    wanted = torch.nn.functional.interpolate(
        labels[None, None].float(), (5, 7), mode='nearest-exact'
    )
    assert torch.equal(resize_labels(labels, (5, 7)), wanted[0, 0].long())


def scores(capsys, file):
    """Metrics of ``mmcen test``."""
    assert command('test', 'seg.py', file, '--work-dir', 'scores') == 0, capsys.readouterr().err
    newest = max(Path('scores').glob('*/*.json'), key=lambda path: path.stat().st_mtime)
    return json.loads(newest.read_text().splitlines()[-1])


def export(*args):
    return command('export', 'seg.py', 'seg.pth', '--size', '64', '96', *args)


def test_exported_files_score_as_the_checkpoint(folder, capsys):  # noqa: F811
    """Logits, labels, int8, and a single modality, by ``mmcen test``."""
    assert export('--streams', '--out', 'logits.onnx') == 0
    assert export('--labels', '--out', 'labels.onnx') == 0
    assert export('--present', 'rgb', '--out', 'rgb.onnx') == 0
    own = scores(capsys, 'seg.pth')
    same = scores(capsys, 'logits.onnx')
    for key in ('mIoU', 'rgb/mIoU', 'depth/mIoU', 'aAcc'):
        assert same[key] == pytest.approx(own[key], abs=0.05)
    assert scores(capsys, 'labels.onnx')['aAcc'] == pytest.approx(own['aAcc'], abs=0.1)
    capsys.readouterr()
    assert command('test', 'seg.py', 'seg.pth', '--present', 'rgb', '--work-dir', 'one') == 0
    (newest,) = Path('one').glob('*/*.json')
    one = json.loads(newest.read_text().splitlines()[-1])
    assert scores(capsys, 'rgb.onnx')['mIoU'] == pytest.approx(one['mIoU'], abs=0.05)
    for args, message in (
        (('labels.onnx', '--tta'), '--tta needs a checkpoint, not an .onnx file'),
        (('none.onnx',), 'checkpoint none.onnx does not exist'),
    ):
        assert command('test', 'seg.py', *args) == 2
        assert message in capsys.readouterr().err


def test_int8_is_checked_before_it_is_written(folder, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr(int8, 'PARTS', 2)
    Path('data/splits/train.txt').write_text('000000\n000001\n000002\n000000')
    few = ('--int8', '--labels', '--frames', '4')
    assert export(*few, '--max-loss', '-1') == 1
    printed = capsys.readouterr()
    assert 'error: int8 costs too much: mIoU' in printed.err
    assert 'pixels that change their label if one part alone is int8' in printed.out
    assert not Path('seg.int8.onnx').exists()
    assert not list(Path().rglob('*.part'))

    assert export(*few, '--max-loss', '100') == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert re.search(r'int8: mIoU \S+ becomes \S+ \(\S+\) on 2 frames', printed)
    kinds = {node.op_type for node in onnx.load('seg.int8.onnx').graph.node}
    assert {'QuantizeLinear', 'DequantizeLinear'} <= kinds
    wanted, found = (
        CENInferencer(*given, show_progress=False)(FOLDERS)['predictions']
        for given in (('seg.py', 'seg.pth'), ('seg.int8.onnx',))
    )
    for one, other in zip(wanted, found, strict=True):
        assert np.mean(one.outputs['ensemble'] == other.outputs['ensemble']) > 0.7

    given = [f'{name}={place}' for name, place in FOLDERS.items()]
    assert export(*few, '--calibrate', *given, '--max-loss', '100') == 1
    assert '3 frames are too few to calibrate and check' in capsys.readouterr().err
    assert export('--calibrate', 'data') == 2
    assert '--calibrate and --max-loss are for --int8' in capsys.readouterr().err
