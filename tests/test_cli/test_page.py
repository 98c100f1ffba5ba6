"""The page for drag and drop: served, answered, and laid out by a browser."""

import base64
import json
import re
import shutil
import subprocess
from argparse import Namespace
from io import BytesIO
from threading import Thread
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image

from mmcen.apis import CENInferencer
from mmcen.cli import page
from tests.converters import command
from tests.training import ROOT

CONFIG = ROOT / 'configs/cen/rooms_lwrefinenet_r18.py'


@pytest.fixture(scope='module')
def address(tmp_path_factory):
    checkpoint = tmp_path_factory.mktemp('page') / 'a.pth'
    model = MODELS.build(Config.fromfile(CONFIG).model)
    torch.save(dict(state_dict=model.state_dict(), meta={}), checkpoint)
    args = Namespace(
        model=str(CONFIG), checkpoint=str(checkpoint), host='127.0.0.1', port=0, depth_unit=0.001
    )
    with page.server(args) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield 'http://{}:{}'.format(*running.server_address), str(checkpoint)
        running.shutdown()


def png(array):
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, format='PNG')
    return dict(name='../x.png', data=base64.b64encode(buffer.getvalue()).decode())


def post(address, files):
    try:
        with urlopen(f'{address}/predict', json.dumps(files).encode(), timeout=60) as answer:
            return json.load(answer)
    except HTTPError as error:
        return json.load(error)


RGB = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
DEPTH = np.full((48, 64), 2500, np.uint16)


def test_predictions_are_those_of_the_inferencer(address):
    url, checkpoint = address
    found = post(url, dict(rgb=png(RGB), depth=png(DEPTH)))['pictures']
    assert set(found) == {'ensemble', 'rgb', 'depth'}
    inferencer = CENInferencer(
        CONFIG, checkpoint, streams=True, depth_unit=0.001, show_progress=False
    )
    wanted = inferencer.visualize([], inferencer(dict(rgb=RGB, depth=DEPTH))['predictions'])[0]
    for name, data in found.items():
        picture = np.asarray(Image.open(BytesIO(base64.b64decode(data))))
        np.testing.assert_array_equal(picture, wanted[name])


@pytest.mark.parametrize(
    'files, message',
    [
        (dict(rgb=png(RGB)), "modality 'depth' is missing: the model takes rgb=... depth=..."),
        (
            dict(rgb=png(DEPTH), depth=png(DEPTH)),
            'the file of rgb is uint16 of shape (48, 64), but colour is uint8 of shape',
        ),
        (
            dict(rgb=png(RGB), depth=png(DEPTH), ir=png(DEPTH)),
            "modality 'ir' is none of the model: the model takes rgb=... depth=...",
        ),
        (dict(rgb=dict(name='a.png', data='!'), depth=png(DEPTH)), 'base64'),
        ([], "'list' object has no attribute 'items'"),
    ],
)
def test_what_is_wrong_is_told(address, files, message):
    assert message in post(address[0], files)['error']


def test_a_prediction_that_fails_is_told(address, monkeypatch):
    def fail(self, *args, **kwargs):
        raise RuntimeError('out of memory')

    monkeypatch.setattr(CENInferencer, '__call__', fail)
    found = post(address[0], dict(rgb=png(RGB), depth=png(DEPTH)))
    assert found == {'error': 'RuntimeError: out of memory'}


def test_too_much_is_told(address, monkeypatch):
    monkeypatch.setattr(page, 'LARGEST', 2**20)
    found = post(address[0], dict(rgb=dict(name='a.png', data='A' * 5 * 2**20)))
    assert found == {
        'error': 'the files are 5 MB, encoded, and 1 at most are taken: give smaller ones, or use '
        '`mmcen predict`'
    }


def browse(address, tmp_path):
    """The page's elements after its script has run, in Chromium."""
    browser = shutil.which('chromium') or shutil.which('google-chrome')
    if browser is None:
        pytest.skip('no Chromium')
    run = subprocess.run(
        [browser, '--headless', '--no-sandbox', '--disable-gpu', '--no-first-run',
         '--disable-background-networking', '--disable-component-update', '--disable-sync',
         f'--user-data-dir={tmp_path / "profile"}', '--virtual-time-budget=5000', '--dump-dom',
         address],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert '<h1>mmcen</h1>' in run.stdout, run.stderr[-999:]
    return run.stdout


def test_the_page_says_that_nobody_answers(tmp_path):
    text = page.PAGE.replace('MODALITIES', '["rgb"]')
    (tmp_path / 'page.html').write_text(f'{text}<script>go.click()</script>')
    shown = browse((tmp_path / 'page.html').as_uri(), tmp_path)
    assert '<p id="error">Failed to fetch</p>' in shown


def test_the_page_in_a_browser(address, tmp_path):
    with urlopen(address[0]) as answer:
        assert '["rgb", "depth"]' in answer.read().decode()
    with pytest.raises(HTTPError, match='404'):
        urlopen(f'{address[0]}/../secret')
    shown = browse(address[0], tmp_path)
    assert re.findall(r'<label id="field-(\w+)"', shown) == ['rgb', 'depth']


def test_what_is_no_model_takes_one_line(capsys, tmp_path):
    other = tmp_path / 'other.pth'
    torch.save(dict(state_dict={'other.weight': torch.zeros(1)}), other)
    for given, sentence in (
        (['no.py', 'no.pth'], 'error: no.py does not exist\n'),
        ([str(CONFIG), str(other)], 'error: the checkpoint is of another model ('),
    ):
        assert command('page', *given) == 1
        assert sentence in capsys.readouterr().err


def test_random_weights_are_refused(capsys):
    assert command('page', str(CONFIG)) == 2
    assert 'a config needs a checkpoint: give both, or an .onnx file' in capsys.readouterr().err
