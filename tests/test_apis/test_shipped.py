"""The model that comes with the package predicts at once, and is what its card says."""

import hashlib
import json
import re

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from mmcen.apis import CENInferencer
from mmcen.checkpoints import read_checkpoint
from mmcen.datasets import SyntheticRooms
from mmcen.datasets.nyuv2 import NYUv2Dataset
from mmcen.engine import launch
from mmcen.shipped import CONFIG_OF, DEFAULT_MODEL, INT8_MODEL, PACKAGE, shipped_model
from tests.converters import command

CARD = (PACKAGE / 'weights' / f'{DEFAULT_MODEL}.md').read_text()


def test_the_card_is_of_these_files():
    files = sorted(p for p in (PACKAGE / 'weights').iterdir() if p.suffix != '.md')
    assert {path.stem for path in files} == set(CONFIG_OF)
    for path in files:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert f'| `{path.name}` | {path.stat().st_size / 2**20:.1f} MiB | `{digest}` |' in CARD
        assert path.stat().st_size < 8 * 2**20


@pytest.mark.parametrize(
    ('model', 'present'),
    [
        (DEFAULT_MODEL, ('rgb', 'depth')),
        (DEFAULT_MODEL, ('rgb',)),
        (DEFAULT_MODEL, ('depth',)),
        (INT8_MODEL, ('rgb', 'depth')),
    ],
)
def test_it_predicts_by_its_name_from_what_is_there(model, present):
    rooms = SyntheticRooms(modalities=('rgb', 'depth'), size=(120, 160), length=1, pipeline=[])
    images = rooms.prepare_data(0)['modalities']
    inferencer = CENInferencer(model)
    (one,) = inferencer({name: images[name] for name in present})['predictions']
    assert one.present == list(present)
    assert one.outputs['ensemble'].shape == (120, 160)
    found = {inferencer.meta['classes'][i] for i in np.unique(one.outputs['ensemble'])}
    assert 'wall' in found  # of a rendered room, which it has never seen


def test_it_has_the_names_of_its_classes():
    meta = read_checkpoint(shipped_model(DEFAULT_MODEL)[1])['meta']['dataset_meta']
    assert list(meta['classes']) == list(NYUv2Dataset.METAINFO['classes'])
    assert len(meta['palette']) == 40


@pytest.mark.long
def test_it_is_exported_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command('export', DEFAULT_MODEL, '--size', '64', '64') == 0
    image = np.random.default_rng(0).integers(0, 255, (160, 208, 3)).astype(np.uint8)
    labels = [
        CENInferencer(model)(dict(rgb=image, depth=np.full((160, 208), 2000, np.uint16)))[
            'predictions'
        ][0].outputs['ensemble']
        for model in (DEFAULT_MODEL, f'{DEFAULT_MODEL}.onnx')
    ]
    assert np.mean(labels[0] == labels[1]) > 0.999


def test_a_file_takes_all_that_it_was_exported_for():
    inferencer = CENInferencer(INT8_MODEL)
    for ask in (inferencer.network_of, inferencer.outputs_of):
        with pytest.raises(ValueError, match="'depth' is missing, without which this file does"):
            ask(['rgb'])


def test_a_name_without_a_model():
    with pytest.raises(FileNotFoundError, match='nyuv2-resnet does not exist'):
        CENInferencer('nyuv2-resnet')


@pytest.mark.parametrize(
    ('line', 'step'),
    [('every sixth test frame', 6), pytest.param('all', 1, marks=pytest.mark.long)],
)
def test_its_score_on_real_frames(data_root, tmp_path, line, step):
    """Mean IoU in percent, as the card states it."""
    config, weights = shipped_model(DEFAULT_MODEL)
    cfg = Config.fromfile(config)
    cfg.work_dir, cfg.log_level = str(tmp_path), 'ERROR'
    cfg.test_dataloader.num_workers = 0
    cfg.test_dataloader.dataset.indices = list(range(0, 654, step))
    cfg.load_from = str(weights)
    launch.protect(cfg)
    runner = Runner.from_cfg(cfg)
    launch.load_strictly(runner, str(weights))
    found = runner.test()
    stated = re.search(rf'\| colour and depth, {line} \| ([\d.]+) \|', CARD)
    assert found['mIoU'] == pytest.approx(float(stated[1]), abs=0.051)


@pytest.mark.long
def test_the_score_of_its_int8_file(data_root, tmp_path):
    assert command('test', INT8_MODEL, '--work-dir', str(tmp_path)) == 0
    (scores,) = tmp_path.glob('*/*.json')
    stated = re.search(r'\| int8, colour and depth, all \| ([\d.]+) \|', CARD)
    found = json.loads(scores.read_text())['mIoU']
    assert found == pytest.approx(float(stated[1]), abs=0.25)  # processors differ in 8 bits


def test_it_is_tested_by_its_name(tmp_path, data_root):
    few = ['test_dataloader.dataset.indices=4', 'test_dataloader.num_workers=0']
    work = ('--work-dir', str(tmp_path), '--cfg-options', *few)
    assert command('test', DEFAULT_MODEL, *work) == 0
    assert list(tmp_path.glob('*/*.json'))


def test_a_config_has_no_checkpoint_of_its_own(capsys):
    for name, message in (
        (('test', 'own.py'), 'a config needs a checkpoint: give both'),
        (('test', 'own.py', '--tta', 'x.pth'), 'own.py'),  # options may stand between the two
        (('export', INT8_MODEL), f'{INT8_MODEL} is an exported file: export {DEFAULT_MODEL}'),
    ):
        assert command(*name) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert message in said
        assert 'unrecognized' not in said
