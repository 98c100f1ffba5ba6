"""The page for drag and drop: served, answered, and laid out by a browser."""

import base64
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from argparse import Namespace
from contextlib import suppress
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
from mmcen.cli.previews import SCENES, SIZE, Examples
from mmcen.datasets import SyntheticRooms
from mmcen.modalities import ModalitySpec
from tests.converters import command
from tests.training import ROOT

CONFIG = ROOT / 'configs/cen/rooms_lwrefinenet_r18.py'
CLASSES = SyntheticRooms.METAINFO['classes']


@pytest.fixture(scope='module')
def address(tmp_path_factory):
    checkpoint = tmp_path_factory.mktemp('page') / 'a.pth'
    model = MODELS.build(Config.fromfile(CONFIG).model)
    torch.save(dict(state_dict=model.state_dict(), meta={}), checkpoint)
    args = Namespace(
        model=str(CONFIG),
        checkpoint=str(checkpoint),
        host='127.0.0.1',
        port=0,
        depth_unit=0.001,
        treat_empty='absent',
    )
    with page.server(args) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield 'http://{}:{}'.format(*running.server_address), str(checkpoint)
        running.shutdown()


def png(array):
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, format='PNG')
    return dict(name='../x.png', data=base64.b64encode(buffer.getvalue()).decode())


def post(address, files, path='predict'):
    try:
        with urlopen(f'{address}/{path}', json.dumps(files).encode(), timeout=60) as answer:
            return json.load(answer)
    except HTTPError as error:
        return json.load(error)


def decoded(data):
    return np.asarray(Image.open(BytesIO(base64.b64decode(data))))


RGB = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
DEPTH = np.linspace(2400, 2600, 48 * 64).reshape(48, 64).astype(np.uint16)


def test_predictions_are_those_of_the_inferencer(address):
    url, checkpoint = address
    answer = post(url, dict(rgb=png(RGB), depth=png(DEPTH)))
    found = answer['pictures']
    assert set(found) == {'ensemble', 'rgb', 'depth'}
    assert answer['present'] == ['rgb', 'depth']
    inferencer = CENInferencer(
        CONFIG, checkpoint, streams=True, depth_unit=0.001, show_progress=False
    )
    wanted = inferencer.visualize([], inferencer(dict(rgb=RGB, depth=DEPTH))['predictions'])[0]
    for name, data in found.items():
        np.testing.assert_array_equal(decoded(data), wanted[name])
    np.testing.assert_array_equal(decoded(answer['colour']), RGB)
    assert sorted(answer['maps']) == ['depth', 'ensemble', 'rgb']
    classes = inferencer(dict(rgb=RGB, depth=DEPTH))['predictions'][0].outputs['ensemble']
    shares = {name: share for name, _, share in answer['legend']}
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    for k, name in enumerate(CLASSES):
        assert shares.get(name, 0) == pytest.approx((classes == k).mean())
    alone = post(url, dict(rgb=png(RGB)))
    assert (alone['present'], set(alone['pictures'])) == (['rgb'], {'ensemble', 'rgb'})


def test_a_file_that_says_nothing_is_told_and_left_out(address):
    colour = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    found = post(address[0], dict(rgb=png(colour), depth=png(np.zeros((64, 64), np.uint16))))
    assert (found['present'], found['used']) == (['rgb'], ['rgb'])
    (doubt,) = found['doubts']
    assert doubt.startswith('the file of depth has no content, all its pixels are 0: check')


def test_depth_is_shown_in_metres(address):
    depth = np.tile(np.linspace(1000, 5000, 64).astype(np.uint16), (48, 1))
    depth[:, :4] = 0
    found = post(address[0], dict(depth=png(depth)), 'preview')['depth']
    assert found['bar']['low'] == pytest.approx(depth[0, 4] / 1000)
    assert found['bar']['high'] == pytest.approx(5)
    shown = decoded(found['picture'])
    assert not shown[:, :4].any()  # black: not measured
    ends = [tuple(int(end[i : i + 2], 16) for i in (1, 3, 5)) for end in found['bar']['colours']]
    np.testing.assert_allclose(shown[0, 4], ends[0], atol=1)
    np.testing.assert_allclose(shown[0, -1], ends[-1], atol=1)
    wrong = post(address[0], dict(rgb=png(DEPTH)), 'preview')
    assert wrong['error'].startswith('the file of rgb is uint16 of shape (48, 64), but colour is')


def test_examples_are_rooms_that_the_model_takes(address):
    with urlopen(f'{address[0]}/example/1') as answer:
        example = json.load(answer)
    rooms = SyntheticRooms(['rgb', 'depth'], size=SIZE, length=SCENES, split='test')
    modalities = rooms[1]['modalities']
    stored = np.load(BytesIO(base64.b64decode(example['files']['depth']['data'])))
    np.testing.assert_allclose(stored * 0.001, modalities['depth'][..., 0], rtol=1e-6)
    np.testing.assert_array_equal(decoded(example['previews']['rgb']['picture']), modalities['rgb'])
    assert post(address[0], example['files'])['present'] == ['rgb', 'depth']
    assert Examples(dict(heat=ModalitySpec('heat', kind='raw'))).scenes == ()


@pytest.mark.parametrize(
    'files, message',
    [
        ({}, 'no modality is given: the model takes any of rgb=... depth=...'),
        (
            dict(rgb=png(DEPTH), depth=png(DEPTH)),
            'the file of rgb is uint16 of shape (48, 64), but colour is uint8 of shape',
        ),
        (
            dict(rgb=png(RGB), depth=png(DEPTH), ir=png(DEPTH)),
            "modality 'ir' is none of the model: the model takes rgb=... depth=...",
        ),
        (dict(rgb=dict(name='a.png', data='!'), depth=png(DEPTH)), 'base64'),
        ([], 'a request is {"MODALITY": {"name": "a.png", "data": BASE64}, ...}'),
        (None, 'a request is {"MODALITY"'),
        (dict(rgb=1, depth=png(DEPTH)), 'a request is {"MODALITY"'),
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


def raw(address, request, wait=5.0):
    """The status that a request gets, as bytes on the wire; None if the connection is closed."""
    with socket.create_connection(address.removeprefix('http://').split(':'), wait) as connection:
        connection.sendall(request)
        first = connection.makefile('rb').readline().split()
        return int(first[1]) if first else None


@pytest.mark.parametrize(
    'status, headers',
    [
        (200, ['Host: 127.0.0.1:7860']),
        (200, ['Host: localhost', 'Origin: http://localhost']),
        (200, ['Host: [::1]:80']),
        (403, ['Host: evil.example']),  # a name that was pointed at this machine
        (403, ['Host: 127.0.0.1.evil.example']),
        (403, []),
        (403, ['Host: [']),
        (403, ['Host: localhost', 'Origin: http://evil.example']),
        (403, ['Host: localhost', 'Origin: null']),
    ],
)
def test_only_its_own_page_may_ask(address, status, headers):
    request = '\r\n'.join(['GET / HTTP/1.0', *headers, '', '']).encode()
    assert raw(address[0], request) == status


@pytest.mark.parametrize(
    'status, header', [(411, b'X: 1'), (411, b'Content-Length: -1'), (411, b'Content-Length: 1e3')]
)
def test_a_body_needs_a_length(address, status, header):
    request = b'POST /predict HTTP/1.0\r\nHost: localhost\r\n' + header + b'\r\n\r\n{}'
    assert raw(address[0], request) == status


def test_slow_clients_hold_nothing(address, monkeypatch):
    monkeypatch.setattr(page, 'DEADLINE', 1.0)
    place = address[0].removeprefix('http://').split(':')
    before = threading.active_count()
    slow = [socket.create_connection(place) for _ in range(30)]
    for connection in slow:
        with suppress(OSError):  # closed, because there are too many
            connection.sendall(b'POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Len')
    time.sleep(0.3)
    assert threading.active_count() <= before + 2 * page.CLIENTS  # each with its timer
    time.sleep(1.5)  # trickling on does not help
    assert threading.active_count() <= before + 1
    with urlopen(address[0], timeout=10) as answer:
        assert answer.status == 200
    for connection in slow:
        connection.close()


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
    text = page.PAGE.replace('FACTS', '{"modalities": ["rgb"], "examples": 0}')
    (tmp_path / 'page.html').write_text(f'{text}<script>go.click()</script>')
    shown = browse((tmp_path / 'page.html').as_uri(), tmp_path)
    assert '<p id="error" role="alert">Failed to fetch</p>' in shown


def test_a_room_is_predicted_in_a_browser(address, tmp_path, monkeypatch):
    """A click on an example fills the fields; then depth is removed, and the rest is predicted."""
    click = """<script>new MutationObserver((_, all) => {
        const rooms = document.querySelectorAll('#examples button');
        if (rooms.length < 4) return;
        all.disconnect();
        rooms[3].click();
        setTimeout(() => { clear('depth'); predict(); }, 2000);
    }).observe(document.getElementById('examples'), {childList: true})</script></body>"""
    monkeypatch.setattr(page, 'PAGE', page.PAGE.replace('</body>', click))
    shown = browse(address[0], tmp_path)
    assert re.findall(r'<label id="field-(\w+)" class="([\w ]+)"', shown) == [
        ('rgb', 'field full'),
        ('depth', 'field'),
    ]
    assert 'Predicted from rgb, without depth.' in shown
    assert re.findall('<figcaption>(.+?)</figcaption>', shown) == ['ensemble', 'stream rgb']
    assert re.search(r'<li><i style="background: rgb\(.+?\);"></i>\w+ \d', shown)
    assert '<p id="error" role="alert"></p>' in shown
    with pytest.raises(HTTPError, match='404'):
        urlopen(f'{address[0]}/../secret')


def test_names_of_a_file_are_no_markup():
    """An ONNX file of a stranger names its modalities."""
    text = page.for_script({'modalities': ['</script><script>alert(1)']})
    assert '<' not in text
    assert json.loads(text) == {'modalities': ['</script><script>alert(1)']}


def test_a_port_out_of_range(capsys):
    assert command('page', str(CONFIG), 'a.pth', '--port', '99999') == 1
    text = 'error: port 99999 is out of range: choose one of 1024 to 65535\n'
    assert capsys.readouterr().err == text


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
    assert 'a config needs a checkpoint: give both, an .onnx file' in capsys.readouterr().err
