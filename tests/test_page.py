"""The page for drag and drop: served, answered, and laid out by a browser."""

import base64
import json
import re
import shutil
import subprocess
import sys
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
from tests.training import ROOT
from tools import page

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
        (dict(rgb=dict(name='a.png', data='!'), depth=png(DEPTH)), 'base64'),
        ([], "'list' object has no attribute 'items'"),
    ],
)
def test_what_is_wrong_is_told(address, files, message):
    assert message in post(address[0], files)['error']


def test_the_page_in_a_browser(address, tmp_path):
    with urlopen(address[0]) as answer:
        assert '["rgb", "depth"]' in answer.read().decode()
    with pytest.raises(HTTPError, match='404'):
        urlopen(f'{address[0]}/../secret')
    browser = shutil.which('chromium') or shutil.which('google-chrome')
    if browser is None:
        pytest.skip('no Chromium')
    run = subprocess.run(
        [browser, '--headless', '--no-sandbox', '--disable-gpu', '--no-first-run',
         '--disable-background-networking', '--disable-component-update', '--disable-sync',
         f'--user-data-dir={tmp_path / "profile"}', '--dump-dom', address[0]],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert re.findall(r'<label id="field-(\w+)"', run.stdout) == ['rgb', 'depth'], run.stderr[-999:]


def test_a_wrong_path_takes_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['page.py', 'no.py', 'no.pth'])
    assert page.main() == 1
    assert capsys.readouterr().err == 'error: no.py does not exist\n'
