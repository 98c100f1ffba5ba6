"""Try a model in the browser, by drag and drop: `mmcen page CONFIG CHECKPOINT`, then open
the address that it prints. Pictures stay on this machine."""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
import tempfile
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from .common import unit

LARGEST = 100 * 2**20  # bytes of a request
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>mmcen</title><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; color: #222; }
label { display: inline-block; width: 14rem; height: 9rem; margin: .4rem; padding: .6rem;
        border: 2px dashed #999; border-radius: .5rem; vertical-align: top; text-align: center; }
label.over { border-color: #06c; background: #eef5ff; }
label.full { border-style: solid; }
label img { max-width: 100%; max-height: 6.5rem; display: block; margin: auto; }
input { display: none; }
button { font: inherit; padding: .4rem 1.2rem; margin: .4rem; }
figure { display: inline-block; margin: .6rem; }
figure img { max-width: 27rem; display: block; }
#error { color: #b00; }
</style></head><body>
<h1>mmcen</h1><p>Drop a file on each field, or click it.</p>
<div id="fields"></div><button id="go">Predict</button><p id="error"></p><div id="found"></div>
<script>
const modalities = MODALITIES, files = {};
const read = file => new Promise((done, fail) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result);
  reader.onerror = () => fail(reader.error);
  reader.readAsDataURL(file);
});
const told = work => async (...given) => {
  try { await work(...given); } catch (failure) { error.textContent = failure.message; }
};
for (const name of modalities) {
  const field = document.createElement('label'), input = document.createElement('input');
  field.id = 'field-' + name;
  input.type = 'file';
  const take = told(async file => {
    files[name] = {name: file.name, data: (await read(file)).split(',')[1]};
    field.className = 'full';
    field.replaceChildren(name + ': ' + file.name, input);
    if (file.type.startsWith('image/')) {
      const picture = new Image();
      picture.src = URL.createObjectURL(file);
      field.append(picture);
    }
  });
  input.onchange = () => input.files.length && take(input.files[0]);
  field.ondragover = event => { event.preventDefault(); field.classList.add('over'); };
  field.ondragleave = () => field.classList.remove('over');
  field.ondrop = event => { event.preventDefault(); take(event.dataTransfer.files[0]); };
  field.append(name, input);
  fields.append(field);
}
go.onclick = told(async () => {
  error.textContent = 'working ...';
  found.replaceChildren();
  const answer = await fetch('/predict', {method: 'POST', body: JSON.stringify(files)});
  const result = await answer.json();
  error.textContent = result.error || '';
  for (const [name, data] of Object.entries(result.pictures || {})) {
    const figure = document.createElement('figure'), picture = new Image();
    picture.src = 'data:image/png;base64,' + data;
    figure.append(picture, name);
    found.append(figure);
  }
});
</script></body></html>
"""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='mmcen page', description=__doc__)
    parser.add_argument('model', help='config file, or an .onnx file of `mmcen export`')
    parser.add_argument('checkpoint', nargs='?', help='checkpoint; an .onnx file has its weights')
    parser.add_argument('--host', default='127.0.0.1', help='default %(default)s: this machine')
    parser.add_argument('--port', type=int, default=7860, help='default %(default)s')
    parser.add_argument('--depth-unit', type=unit, help='m, cm, mm, or metres per stored unit')
    args = parser.parse_args(argv)
    if not args.model.endswith('.onnx') and args.checkpoint is None:
        parser.error('a config needs a checkpoint: give both, or an .onnx file')
    return args


class Handler(BaseHTTPRequestHandler):
    """The page, and predictions as JSON."""

    inferencer: Any
    lock = Lock()  # one prediction at a time

    def do_GET(self) -> None:
        if self.path != '/':
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        page = PAGE.replace('MODALITIES', json.dumps(self.inferencer.modalities))
        self._answer(HTTPStatus.OK, 'text/html; charset=utf-8', page)

    def do_POST(self) -> None:
        if self.path != '/predict':
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            result: dict[str, Any] = {'pictures': self._pictures(json.loads(self._body()))}
            status = HTTPStatus.OK
        except Exception as error:  # whatever it is, the page has to say it
            told = isinstance(error, (ValueError, OSError))
            result = {'error': str(error) if told else f'{type(error).__name__}: {error}'}
            status = HTTPStatus.BAD_REQUEST
        self._answer(status, 'application/json', json.dumps(result))

    def _body(self) -> bytes:
        length = int(self.headers.get('Content-Length') or 0)
        if length <= LARGEST:
            return self.rfile.read(length)
        for start in range(0, length, 2**20):  # a browser listens when it has sent all
            self.rfile.read(min(2**20, length - start))
        raise ValueError(
            f'the files are {length / 2**20:.0f} MB, encoded, and {LARGEST // 2**20} at most are '
            'taken: give smaller ones, or use `mmcen predict`'
        )

    def _pictures(self, files: dict) -> dict[str, str]:
        """Outputs by name, base64 PNG, of files by modality."""
        with tempfile.TemporaryDirectory() as folder:
            given = {}
            for i, (name, file) in enumerate(files.items()):
                # a number and the suffix: what a browser calls a file is no path of ours
                path = Path(folder, f'{i}{Path(file["name"]).suffix}')
                path.write_bytes(base64.b64decode(file['data'], validate=True))
                given[name] = path
            try:
                with self.lock:
                    found = self.inferencer(given)['predictions']
            except ValueError as error:
                text = str(error)
                for name, path in given.items():
                    text = text.replace(str(path), f'the file of {name}')
                raise ValueError(text) from error
            (pictures,) = self.inferencer.visualize([], found)
        return {name: encode(picture) for name, picture in pictures.items()}

    def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the page says what went wrong."""


def encode(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format='PNG')
    return base64.b64encode(buffer.getvalue()).decode()


def server(args: argparse.Namespace) -> ThreadingHTTPServer:
    """Ready to serve; the model is loaded."""
    print(f'loading {args.model} ...', file=sys.stderr, flush=True)
    from ..apis import CENInferencer

    Handler.inferencer = CENInferencer(
        args.model, args.checkpoint, streams=True, depth_unit=args.depth_unit, show_progress=False
    )
    return ThreadingHTTPServer((args.host, args.port), Handler)


def serve(args: argparse.Namespace) -> None:
    with server(args) as running:
        print(f'open http://{args.host}:{running.server_port} (Ctrl-C ends it)', flush=True)
        running.serve_forever()


def main(argv: Sequence[str] | None = None) -> None:
    serve(parse_args(argv))
