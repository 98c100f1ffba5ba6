"""Exported files: label maps, int8, size, and their scores on the test set."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mmcen.apis import CENInferencer
from mmcen.apis.calibration import frames_of_folders
from mmcen.deploy import Labelled, deploy, int8
from mmcen.models.label_map import resize_labels
from tests.converters import command
from tests.test_apis.test_inferencer import FOLDERS, folder, made  # noqa: F401  (fixtures)
from tests.test_deploy.test_deploy import FCN, HRNET, segmentor, trained

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')


@pytest.mark.parametrize('classes', [5, 1])
def test_label_maps_are_those_of_the_logits(classes):
    head = FCN if classes == 5 else FCN | dict(num_classes=2, out_channels=1, threshold=0.4)
    network = deploy(trained(segmentor(backbone=HRNET, head=head)), ['ensemble', 'rgb'])
    frames = [255 * torch.rand(2, c, 64, 32) for c in (3, 1)]
    with torch.no_grad():
        pairs = zip(network(*frames), Labelled(network, 0.4)(*frames), strict=True)
    for logits, found in pairs:
        wanted = logits.argmax(1) if classes > 1 else (logits[:, 0].sigmoid() > 0.4).long()
        assert (found.dtype, found.shape) == (torch.uint8, (2, 64, 32))
        assert torch.equal(found.long(), wanted)


def test_resized_labels_are_those_of_the_nearest_pixel():
    labels = torch.arange(6).view(2, 3)
    wanted = torch.nn.functional.interpolate(
        labels[None, None].float(), (5, 7), mode='nearest-exact'
    )
    assert torch.equal(resize_labels(labels, (5, 7)), wanted[0, 0].long())


def scores(file, *args):
    """Metrics of ``mmcen test``."""
    place = Path('scores', f'{file}{len(args)}')
    assert command('test', 'seg.py', file, '--work-dir', str(place), *args) == 0
    (found,) = place.glob('*/*.json')
    return json.loads(found.read_text().splitlines()[-1])


def export(*args):
    return command('export', 'seg.py', 'seg.pth', '--size', '64', '64', *args)


@pytest.mark.long
def test_exported_files_score_as_the_checkpoint(folder, capsys):  # noqa: F811
    """Label maps of all streams, and logits of a single modality."""
    assert export('--streams', '--labels', '--out', 'labels.onnx') == 0
    own, same = scores('seg.pth'), scores('labels.onnx')
    for key in ('mIoU', 'rgb/mIoU', 'depth/mIoU', 'aAcc'):
        assert same[key] == pytest.approx(own[key], abs=0.1)
    # weights that streams share are there once
    numbers = sum(int(np.prod(one.dims)) for one in onnx.load('labels.onnx').graph.initializer)
    state = torch.load('seg.pth', weights_only=True)['state_dict']
    assert numbers < 1.1 * sum(value.numel() for value in state.values())

    assert export('--present', 'rgb') == 0
    one = scores('seg.pth', '--present', 'rgb', '--cfg-options', 'model.test_cfg.streams=False')
    assert scores('seg.rgb.onnx')['mIoU'] == pytest.approx(one['mIoU'], abs=0.1)
    capsys.readouterr()
    for args, message in (
        (('labels.onnx', '--tta'), '--tta needs a checkpoint, not an .onnx file'),
        (('none.onnx',), 'checkpoint none.onnx does not exist'),
    ):
        assert command('test', 'seg.py', *args) == 2
        assert message in capsys.readouterr().err


@pytest.mark.long
def test_int8_is_checked_before_it_is_written(folder, capsys, monkeypatch):  # noqa: F811
    """With labels by their mIoU, without by the pixels that change their label."""
    monkeypatch.setattr(int8, 'PARTS', 2)
    write = int8.write_int8

    def keep(path, *args):
        shutil.copy(path, 'float.onnx')
        return write(path, *args)

    monkeypatch.setattr(int8, 'write_int8', keep)
    Path('data/splits/train.txt').write_text('000000\n000001\n000002\n000000')
    few = ('--int8', '--labels', '--frames', '4')
    assert export(*few, '--max-loss', '100') == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert re.search(r'int8: mIoU \S+ becomes \S+ \(\S+\) on 2 frames', printed)
    kinds = {node.op_type for node in onnx.load('seg.int8.onnx').graph.node}
    assert {'QuantizeLinear', 'DequantizeLinear'} <= kinds
    inferencer = CENInferencer('seg.py', 'seg.pth', show_progress=False)
    wanted = inferencer(FOLDERS)['predictions']
    found = CENInferencer('seg.int8.onnx', show_progress=False)(FOLDERS)['predictions']
    for one, other in zip(wanted, found, strict=True):
        assert np.mean(one.outputs['ensemble'] == other.outputs['ensemble']) > 0.7

    given = [f'{name}={place}' for name, place in FOLDERS.items()]
    frames = 2 * frames_of_folders(inferencer, list(FOLDERS), given, 96)
    steps = []
    with pytest.raises(ValueError, match=r'int8 costs too much: \S+ % of the pixels of 3 frames'):
        write(Path('float.onnx'), Path('no.onnx'), frames, -1, steps.append)
    assert any('if one part alone is int8' in step for step in steps)
    assert steps[0] == (
        'the frames have no label gt_sem_seg: the loss is in pixels that change their label'
    )
    assert not Path('no.onnx').exists()
    assert not list(Path().rglob('*.part'))
    with pytest.raises(ValueError, match='3 frames are too few to calibrate and check'):
        write(Path('float.onnx'), Path('no.onnx'), frames[:3])
    with pytest.raises(ValueError, match="--calibrate has no folder of 'depth'"):
        frames_of_folders(inferencer, list(FOLDERS), given[:1], 96)
    assert export('--calibrate', 'data') == 2
    assert '--calibrate and --max-loss are for --int8' in capsys.readouterr().err
