"""Try a model in the browser by drag and drop: `mmcen page CONFIG CHECKPOINT`, then open the
printed address. Images stay on this machine."""

from __future__ import annotations

import argparse
import base64
import json
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import BoundedSemaphore, Lock, Timer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .common import add_model, check_model, unit

if TYPE_CHECKING:
    from .previews import Examples

LARGEST = 100 * 2**20  # bytes of a request
DEADLINE = 60  # seconds until a request must have arrived
CLIENTS = 16  # connections at once
PAGE = Path(__file__).with_name('page.html').read_text(encoding='utf-8')


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='mmcen page', description=__doc__)
    add_model(parser)
    parser.add_argument('--host', default='127.0.0.1', help='default %(default)s: this machine')
    parser.add_argument('--port', type=int, default=7860, help='default %(default)s')
    parser.add_argument('--depth-unit', type=unit, help='m, cm, mm, or metres per stored unit')
    parser.add_argument(
        '--treat-empty',
        choices=['use', 'absent'],
        default='use',
        help='what becomes of a file that says nothing, as of `mmcen predict` (default: '
        '%(default)s)',
    )
    args = parser.parse_args(argv)
    check_model(args, parser)
    return args


class RequestError(ValueError):
    """A request that is not served.

    Args:
        status: HTTP status of the answer.
        text: What is wrong.
    """

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class Server(ThreadingHTTPServer):
    """Serves a bounded number of connections at once; further ones are closed."""

    daemon_threads = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.free = BoundedSemaphore(CLIENTS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self.free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet: a client that goes away is no error."""


class Handler(BaseHTTPRequestHandler):
    """The page, and predictions as JSON.

    A page of another site that is open in the same browser must not use the model: ``Host`` has to
    be this machine's name or an address, against rebinding of names, and ``Origin`` this page.
    """

    inferencer: Any
    examples: Examples
    lock = Lock()  # one prediction at a time

    def handle(self) -> None:
        with self._deadline():
            super().handle()

    @contextmanager
    def _deadline(self) -> Iterator[None]:
        """Close the connection unless the request arrives in time, however it trickles in."""

        def close() -> None:
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RD)

        self.timer = Timer(DEADLINE, close)
        self.timer.daemon = True
        self.timer.start()
        try:
            yield
        finally:
            self.timer.cancel()

    def do_GET(self) -> None:
        def content() -> tuple[str, str]:
            self._check(['/', *(f'/example/{i}' for i in range(len(self.examples.scenes)))])
            if self.path == '/':
                facts = {
                    'modalities': self.inferencer.modalities,
                    'examples': len(self.examples.scenes),
                }
                return 'text/html; charset=utf-8', PAGE.replace('FACTS', for_script(facts))
            with self.lock:
                return 'application/json', self.examples.answer(int(self.path.rpartition('/')[2]))

        self._answer(content)

    def do_POST(self) -> None:
        def content() -> tuple[str, str]:
            self._check(['/predict', '/preview'])
            body = self._body()
            try:
                files = json.loads(body)
            except (ValueError, RecursionError) as error:
                raise ValueError(f'the request is no JSON that can be read ({error})') from error
            self.timer.cancel()
            with stored(files) as given:
                work = self._predict if self.path == '/predict' else self._preview
                return 'application/json', json.dumps(work(given))

        self._answer(content)

    def _check(self, paths: Sequence[str]) -> None:
        host, origin = self.headers.get('Host', ''), self.headers.get('Origin')
        address: Any = self.server.server_address
        if not is_this_machine(host, address[0]):
            raise RequestError(HTTPStatus.FORBIDDEN, f'Host {host!r} is not this machine')
        if origin is not None and urlsplit(origin).netloc != host:
            raise RequestError(HTTPStatus.FORBIDDEN, f'Origin {origin!r} is not this page')
        if self.path not in paths:
            raise RequestError(HTTPStatus.NOT_FOUND, f'there is no {self.path!r} here')

    def _body(self) -> bytes:
        text = self.headers.get('Content-Length') or ''
        if not text.isdecimal():
            raise RequestError(HTTPStatus.LENGTH_REQUIRED, 'a request needs a Content-Length')
        length = int(text)
        if length > LARGEST:
            # a browser listens when it has sent all; an endless body ends at the deadline
            for start in range(0, length, 2**20):
                if not self.rfile.read(min(2**20, length - start)):
                    break
            raise RequestError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f'the files are {length / 2**20:.0f} MB, encoded, and {LARGEST // 2**20} at most '
                'are taken: give smaller ones, or use `mmcen predict`',
            )
        body = self.rfile.read(length)
        if len(body) < length:
            raise RequestError(HTTPStatus.REQUEST_TIMEOUT, 'the request did not arrive in time')
        return body

    def _predict(self, given: dict[str, Path]) -> dict[str, Any]:
        """Return pictures of the outputs by name, base64 PNG, and what the page says of them.

        ``maps`` names the outputs that are class maps, ``present`` the inputs of the model that
        were there, ``used`` their files, and ``doubts`` are warnings about files.
        """
        from ..datasets.transforms.plausible import ImplausibleWarning
        from .previews import encode, legend

        with self.lock, warnings.catch_warnings(record=True) as told:
            warnings.simplefilter('always', ImplausibleWarning)
            (found,) = self.inferencer(given)['predictions']
        (pictures,) = self.inferencer.visualize([], [found])
        maps = {name: value for name, value in found.outputs.items() if value.ndim == 2}
        return {
            'pictures': {name: encode(picture) for name, picture in pictures.items()},
            'maps': list(maps),
            'legend': legend(list(maps.values()), self.inferencer.meta),
            'colour': None if found.colour is None else encode(found.colour),
            'present': found.present,
            'used': self.inferencer.sources_of(found.present),
            'doubts': [
                without_paths(str(one.message), given)
                for one in told
                if issubclass(one.category, ImplausibleWarning)
            ],
        }

    def _preview(self, given: dict[str, Path]) -> dict[str, Any]:
        """Return the preview of each file."""
        from ..datasets.transforms.reading import read_array
        from .previews import preview

        info = self.inferencer.info
        if unknown := [name for name in given if name not in info]:
            raise ValueError(f"modality '{unknown[0]}' is none of the model: it has {list(info)}")
        return {
            name: preview(read_array(str(path)), info[name], str(path))
            for name, path in given.items()
        }

    def _answer(self, make: Callable[[], tuple[str, str]]) -> None:
        """Send what ``make`` gives; whatever goes wrong, the page has to say it."""
        status, kind = HTTPStatus.OK, 'application/json'
        try:
            kind, text = make()
        except Exception as error:
            status = getattr(error, 'status', HTTPStatus.BAD_REQUEST)
            plain = isinstance(error, (ValueError, OSError))
            sentence = str(error) if plain else f'{type(error).__name__}: {error}'
            text = json.dumps({'error': sentence})
        body = text.encode()
        self.send_response(status)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(body)))
        self.send_header('X-Content-Type-Options', 'nosniff')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the page says what went wrong."""


@contextmanager
def stored(files: Any) -> Iterator[dict[str, Path]]:
    """Write the files of a request, and yield their paths by modality.

    Raises:
        ValueError: If the request is not one of files, or the work on them raised this error, whose
            text then names modalities instead of paths.
    """
    if not isinstance(files, dict) or not all(map(is_file, files.values())):
        raise ValueError('a request is {"MODALITY": {"name": "a.png", "data": BASE64}, ...}')
    with tempfile.TemporaryDirectory() as folder:
        given = {}
        for i, (name, file) in enumerate(files.items()):
            # a number and the suffix: what a browser calls a file is no path of ours
            path = Path(folder, f'{i}{Path(file["name"]).suffix}')
            path.write_bytes(base64.b64decode(file['data'], validate=True))
            given[name] = path
        try:
            yield given
        except ValueError as error:
            raise ValueError(without_paths(str(error), given)) from error


def without_paths(text: str, given: Mapping[str, Path]) -> str:
    """Return a text that names modalities instead of the paths of their files."""
    for name, path in given.items():
        text = text.replace(str(path), f'the file of {name}')
    return text


def is_file(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(k), str) for k in ('name', 'data'))


def for_script(value: object) -> str:
    """Return JSON that can stand in a script: a name in an ONNX file may hold ``</script>``."""
    return json.dumps(value).replace('<', '\\u003c')


def is_this_machine(host: str, bound: str) -> bool:
    """Whether a Host header is this machine's name, the bound one, or an address.

    Other names may belong to a page that wants to be taken for this one.
    """
    try:
        name = urlsplit(f'//{host}').hostname or ''
    except ValueError:  # brackets without an address
        return False
    try:
        ip_address(name)
        return True
    except ValueError:
        return name in ('localhost', bound, socket.gethostname().lower())


def server(args: argparse.Namespace) -> Server:
    """Ready to serve; the model is loaded.

    Raises:
        ValueError: The port is out of range.
        OSError: The port is in use.
    """
    if not 0 <= args.port < 2**16:
        raise ValueError(f'port {args.port} is out of range: choose one of 1024 to 65535')
    print(f'loading {args.model} ...', file=sys.stderr, flush=True)
    from ..apis import CENInferencer
    from .previews import Examples

    Handler.inferencer = CENInferencer(
        args.model,
        args.checkpoint,
        streams=True,
        depth_unit=args.depth_unit,
        treat_empty=args.treat_empty,
        show_progress=False,
    )
    Handler.examples = Examples(Handler.inferencer.info)
    return Server((args.host, args.port), Handler)


def serve(args: argparse.Namespace) -> None:
    with server(args) as running:
        print(f'open http://{args.host}:{running.server_port} (Ctrl-C ends it)', flush=True)
        running.serve_forever()


def main(argv: Sequence[str] | None = None) -> None:
    serve(parse_args(argv))
