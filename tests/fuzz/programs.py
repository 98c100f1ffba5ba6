"""Cases of configs, options, specs, command lines and requests."""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import math
import random
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from mmcen import cli
from mmcen.cli import page
from mmcen.doctor.config import examine
from mmcen.engine import launch
from mmcen.engine.options import KNOWN, Options, read_config
from mmcen.files import write
from mmcen.modalities import KEYS, UNITS
from mmcen.models.data_preprocessor import STOCK, CENDataPreprocessor

from .mutate import ODD, damage, mutate, slip
from .outcomes import Bare, Case, Clear, is_sentence, same
from .world import World

PREPROCESSOR: dict[str, Any] = {
    'size': [32, 64],
    'modalities': [
        {'name': 'rgb', 'mean': [123.7, 116.3, 103.5], 'std': [58.4, 57.1, 57.4]},
        {'name': 'depth', 'unit': 'mm', 'mean': [2.8], 'std': [1.6], 'pad': 0},
    ],
}
PYTHONS_OWN = re.compile(r'NoneType|unhashable|IndexError|AttributeError|AssertionError: *$')
ERROR_CLASS = re.compile(r'\b(\w*(Error|Exception|Interrupt)): ')


def spec(draw: random.Random, world: World) -> Case:
    """Modalities and a preprocessor with other keys and values."""
    given, note = mutate(PREPROCESSOR, draw)
    given.setdefault('modalities', None)
    return Case(
        lambda: CENDataPreprocessor(**given),
        lambda found: _honest(given, found),
        lambda: _possible(given),
        note=note,
    )


def _possible(given: Any) -> bool:
    """Whether all keys are known and all numbers finite: a model of other modalities."""
    known = {'size', 'size_divisor', 'modalities', 'pad_val', 'seg_pad_val', 'test_cfg',
             'batch_augments', 'common_channels', *STOCK}  # fmt: skip
    if not isinstance(given, dict) or not set(given) <= known:
        return False
    for one in given['modalities']:
        entry = {'name': one} if isinstance(one, str) else one
        numbers = [*_numbers(entry.get('mean')), *_numbers(entry.get('pad'))]
        positive = _numbers(entry.get('std'))
        unit = entry.get('unit', 'm')
        units = list(unit.values()) if isinstance(unit, dict) else [unit]
        positive += [u for u in units if u is not None and u not in list(UNITS)]
        good = all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers + positive)
        if not set(entry) <= set(KEYS) or not good or not all(n > 0 for n in positive):
            return False
    return True


def _numbers(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _honest(given: Any, model: Any) -> bool:
    """Whether the preprocessor normalises as is stated."""
    if not _possible(given):
        return False
    for entry in given['modalities']:
        mean, std, _ = model.normalisation(entry['name'])
        for stated, own in ((entry['mean'], mean), (entry['std'], std)):
            repeated = np.resize(np.float32(stated), own.numel())
            if not np.allclose(own.flatten().numpy(), repeated, rtol=1e-5, atol=1e-4):
                return False
    return [entry['name'] for entry in given['modalities']] == model.modalities


WORDS = (
    'model.backbone.depth=18', 'train_cfg.max_epochs=3', 'train_dataloader.batch_size=2',
    'model.data_preprocessor.size="(64,64)"', 'optim_wrapper.optimizer.lr=0.1',
    'param_scheduler.0.end=3', 'randomness.seed=4', 'custom_hooks.0.coefficient=0.1',
    'default_hooks.checkpoint.interval=1', 'resume=False', 'load_from=own.pth',
)  # fmt: skip


def option(draw: random.Random, world: World) -> Case:
    """Overrides of a config with slips in key or value."""
    key, _, value = draw.choice(WORDS).partition('=')
    how = draw.randrange(4)
    word = f'{key}={value}'
    if how == 0:
        parts = key.split('.')
        i = draw.randrange(len(parts))
        parts[i] = slip(parts[i], draw)
        word = f'{".".join(parts)}={value}'
    elif how == 1:
        word = f'{key}={draw.choice(ODD)}'
    elif how == 2:
        word = damage(word.encode(), draw)[0].decode('latin-1')
    else:
        word = draw.choice(
            (
                key,
                f'={value}',
                f'{key}.x={value}',
                f'{key}.0={value}',
                f'{key}=[',
                f'{key}=(1,',
                f'{key}="',
                f'.{word}',
                f'{key}=__import__("os")',
            )
        )

    def work() -> Config:
        parser = argparse.ArgumentParser()
        parser.add_argument('--cfg-options', nargs='+', action=Options)
        with _sentence_on_exit():
            options = parser.parse_args(['--cfg-options', word]).cfg_options
        return read_config('own.py', options)

    def right(found: Config) -> bool:
        """Whether the entry was there; the last part may be new where its parent is a table."""
        own, place = Config.fromfile('own.py'), None
        parts = word.partition('=')[0].split('.')
        for i, part in enumerate(parts):
            place = own if i == 0 else place
            if isinstance(place, list):
                if not part.isdecimal() or int(part) >= len(place):
                    return False
                place = place[int(part)]
            elif isinstance(place, Mapping) or i == 0:
                new = part not in place and not (i == 0 and part in KNOWN)
                if new:
                    return i == len(parts) - 1 and i > 0
                place = place.get(part)
            else:
                return False
        return True

    return Case(work, right, note=word)


@contextlib.contextmanager
def _sentence_on_exit() -> Iterator[None]:
    """What a parser says when it ends the program."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            yield
    except SystemExit as stop:
        text = said.getvalue()
        if stop.code == 2 and is_sentence(text.rpartition('error: ')[2]):
            raise Clear(text[-300:]) from None
        raise Bare(f'status {stop.code}: {text[-300:]}') from None


def config(draw: random.Random, world: World) -> Case:
    """A config with other text, keys or values; what the doctor passes has to train."""
    path = Path('tmp/x.py')
    if draw.random() < 0.3:
        data, note = damage(world.files['own.py'], draw)
        path.write_bytes(data)
    else:
        given, note = mutate(Config.fromfile('own.py').to_dict(), draw)
        if not isinstance(given, dict):
            given = {'model': given}
        path.write_text('\n'.join(f'{k} = {v!r}' if k.isidentifier() else k for k, v in
                                  given.items()).replace('nan', 'float("nan")'))  # fmt: skip

    def work() -> str:
        report = examine(str(path), None)
        for problem in report.problems:
            if not is_sentence(problem) or PYTHONS_OWN.search(problem):
                raise Bare(problem)
            raise Clear(problem)
        try:
            train(path)
        except BaseException as error:
            return f'the doctor passed what does not train: {type(error).__name__}: {error}'
        return 'trains'

    return Case(work, lambda found: found == 'trains', names=['x.py'], note=note)


def train(path: Path) -> None:
    """Train as the command does."""
    work_dir = Path('tmp/train')
    shutil.rmtree(work_dir, ignore_errors=True)
    cfg = read_config(str(path))
    cfg.work_dir, cfg.launcher, cfg.log_level = str(work_dir), 'none', 'ERROR'
    cfg.experiment_name = str(uuid4())
    launch.build_runner(cfg).train()


MODEL = ('own.py', 'own.pth')
INPUT = ('--input', 'rgb=rgb/a.png', 'depth=depth/a.png')
LINES: tuple[tuple[str, ...], ...] = (
    ('predict', 'own.onnx', *INPUT, '--out-dir', 'tmp/out'),
    ('predict', *MODEL, '--input', 'rgb=rgb', 'depth=depth', '--out-dir', 'tmp/out', '--size',
     '32', '64', '--batch-size', '2', '--depth-unit', 'mm', '--streams', '--overlay', '0.3'),
    ('predict', *MODEL, *INPUT, '--out-dir', 'tmp/out', '--device', 'cpu', '--strict'),
    ('export', *MODEL, '--out', 'tmp/out.onnx', '--size', '32', '64', '--outputs', 'ensemble'),
    ('train', 'own.py', '--work-dir', 'tmp/train', '--cfg-options', 'train_cfg.max_epochs=1',
     'train_cfg.val_interval=1', '--launcher', 'none'),
    ('train', 'own.py', '--work-dir', 'tmp/train', '--resume', '--amp'),
    ('test', *MODEL, '--work-dir', 'tmp/train', '--out', 'tmp/maps', '--cfg-options',
     'test_dataloader.batch_size=1'),
    ('test', *MODEL, '--work-dir', 'tmp/train', '--show-dir', 'tmp/shown', '--wait-time', '1'),
    ('demo', '--work-dir', 'tmp/demo', '--cfg-options', 'train_cfg.max_epochs=1'),
    ('doctor', 'own.py', '--picture', 'tmp/a.png', '--cfg-options', 'model.backbone.depth=18'),
    ('doctor', '--require', 'stack'),
    ('report', 'tmp/log', '--out', 'tmp/report.html'),
    ('page', *MODEL, '--host', '127.0.0.1', '--port', '0', '--depth-unit', 'mm'),
    ('convert-data', 'official-segmenter', 'own.pth', 'tmp/out.pth'),
    ('convert-data', 'official-generator', 'own.pth', 'tmp/out.pth'),
    ('convert-data', 'nyuv2', 'tmp/x.mat', '--out', 'tmp/nyu', '--workers', '1'),
    ('convert-data', 'taskonomy', 'tmp', '--out', 'tmp/tasks', '--workers', '1', '--seed', '0'),
    ('convert-data', 'saliency', '--data-root', 'tmp', '--sets', 'njud', '--workers', '1'),
    ('convert-data', 'sunrgbd', 'tmp', '--toolbox', 'tmp'),
    ('convert-data', 'cityscapes', 'tmp', '--out', 'tmp/city'),
    ('convert-data', 'derive-domains', '--data-root', 'tmp', '--out', 'tmp/domains', '--size',
     '8', '8', '--workers', '1'),
)  # fmt: skip
TOKENS = (
    '', '-1', '0', 'nan', 'inf', '1e9', 'x', '../x', 'rgb=', '=x', 'rgb=rgb', 'depth=no.png',
    'own.py', 'own.pth', 'own.onnx', 'rgb', '--x', '--help', 'a.b', 'a.b=1', 'é', '99999', '1.5',
    '[]', '{}', 'tmp', 'own.pth/x', '--', '-', 'x' * 300, 'model.backbone.depth=x', 'modle.x=1',
)  # fmt: skip


def command(draw: random.Random, world: World) -> Case:
    """A command line with other words, or with a file that is damaged."""
    line, note = list(draw.choice(LINES)), ''
    for _ in range(draw.choice((1, 1, 2))):
        i = draw.randrange(len(line))
        how = draw.choice(('replace', 'replace', 'drop', 'slip', 'add', 'swap', 'damage'))
        if how == 'replace':
            line[i] = draw.choice(TOKENS)
        elif how == 'drop' and len(line) > 1:
            del line[i]
        elif how == 'slip' and line[i]:
            line[i] = slip(line[i], draw)
        elif how == 'add':
            line.insert(i, draw.choice(TOKENS))
        elif how == 'swap':
            j = draw.randrange(len(line))
            line[i], line[j] = line[j], line[i]
        elif line[i] in world.files:
            data, note = damage(world.files[line[i]], draw)
            name = f'tmp/damaged{Path(line[i]).suffix}'
            Path(name).write_bytes(data)
            line[i] = name
    _make_log(draw)

    def work() -> str:
        before = _contents()
        try:
            return run(line)
        finally:
            changed = [path for path, data in before.items() if _read(path) != data]
            for path, data in before.items():
                Path(path).write_bytes(data)
            if changed:
                raise AssertionError(f'{changed} was overwritten')

    return Case(work, lambda found: True, note=f'{" ".join(line)} {note}')


def _contents() -> dict[str, bytes]:
    paths = [*Path().glob('own.*'), *Path('rgb').iterdir(), *Path('depth').iterdir()]
    return {str(path): path.read_bytes() for path in paths}


def _read(path: str) -> bytes | None:
    return Path(path).read_bytes() if Path(path).is_file() else None


def _make_log(draw: random.Random) -> None:
    """A log of a training for the report, in part damaged."""
    folder = Path('tmp/log/1/vis_data')
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({'loss': 1 / i, 'iter': i, 'step': i, 'epoch': 1}) for i in range(1, 5)]
    lines += [json.dumps({'mIoU': 3.0, 'step': 1}), json.dumps({'exchange/a/rgb': 0.1, 'step': 1})]
    data = '\n'.join(lines).encode()
    if draw.random() < 0.7:
        data = damage(data, draw)[0]
    (folder / 'scalars.json').write_bytes(data)


def run(line: list[str]) -> str:
    """Run a command in this process.

    Raises:
        Clear: It ended with a sentence.
        Bare: It ended without one.
    """
    said, shown = io.StringIO(), io.StringIO()
    status: Any = None
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(shown):
        try:
            status = cli.main(line)
        except SystemExit as stop:
            status = stop.code
    text = said.getvalue()
    if not status:
        return shown.getvalue()[-100:]
    sentence = text.rpartition('error: ')[2]
    problems = re.findall('^problem: .*', shown.getvalue(), re.M)
    sentence = sentence if 'error: ' in text else ' '.join(problems) or text
    if 'Traceback' in text or not is_sentence(sentence):
        raise Bare(f'status {status}: {text[-300:]}')
    raise Clear(f'status {status}: {sentence[-300:]}')


def patches() -> contextlib.ExitStack:
    """What takes long, or does not end, is left out of commands."""
    stack = contextlib.ExitStack()
    enter = stack.enter_context
    enter(patch('mmengine.runner.runner.collect_env', dict))  # starts compilers
    for place in ('runner.runner', 'hooks.runtime_info_hook'):
        enter(patch(f'mmengine.{place}.get_git_hash', str))
    enter(patch('mmcen.cli.demo.shipped_config', lambda name: Path('own.py')))
    enter(patch('mmcen.deploy.export_onnx', lambda model, out, *rest: write(out, b'') or 0.0))
    enter(patch.object(page.Server, 'serve_forever', lambda self: None))
    enter(patch.object(Runner, 'dump_config', lambda self: None))
    return stack


def request(draw: random.Random, world: World) -> Case:
    """A request to the page: bytes, headers and JSON that are others."""
    files: Any = {
        part: {
            'name': f'{part}.png',
            'data': base64.b64encode(world.pictures[part]['.png']).decode(),
        }
        for part in ('rgb', 'depth')
    }
    body, note = json.dumps(files).encode(), ''
    how = draw.randrange(4)
    if how == 0:
        given, note = mutate(files, draw)
        body = json.dumps(given).encode()
    elif how == 1:
        part = draw.choice(('rgb', 'depth'))
        picture, note = damage(world.pictures[part]['.png'], draw)
        files[part]['data'] = base64.b64encode(picture).decode()
        body = json.dumps(files).encode()
    elif how == 2:
        body, note = draw.choice(
            [b'null', b'[]', b'1', b'{}', b'"x"', b'{"rgb": null}', b'[' * 99999, b'{"a":' * 9999,
             b'NaN', b'\xff\xfe{}', b'{"rgb": {"name": 1, "data": 2}}']
        ), 'another body'  # fmt: skip
    head = (
        'POST /predict HTTP/1.1\r\nHost: localhost:7860\r\nConnection: close\r\n'
        f'Content-Length: {len(body)}\r\n\r\n'
    ).encode()
    if how == 3:
        head, note = damage(head, draw)
    return Case(
        lambda: ask(world, head + body),
        lambda found: same(found, world.wanted['ensemble'].tolist()),
        lambda: 'GET' in note,
        note=f'{("JSON", "picture", "body", "head")[how]} {note}',
    )


COLOURS = [[0, 0, 0], [200, 0, 0], [0, 200, 0]]


def _receive(end: socket.socket) -> bytes:
    """All that was sent; that the other end closed early is reported before it, once."""
    answer, more = b'', b'x'
    while more:
        with contextlib.suppress(ConnectionResetError):
            more = end.recv(2**16)
            answer += more
    return answer


def ask(world: World, data: bytes) -> list[list[int]]:
    """What the page answers: the classes of the picture that it sends.

    Raises:
        Clear: The answer says what is wrong.
        Bare: It does not.
    """
    page.Handler.inferencer = world.inferencer
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
        end.settimeout(30)
    theirs.sendall(data)
    theirs.shutdown(socket.SHUT_WR)
    server: Any = SimpleNamespace(server_address=('127.0.0.1', 7860))
    page.Handler(ours, ('127.0.0.1', 1), server)
    ours.close()
    answer = _receive(theirs)
    theirs.close()
    head, _, body = answer.partition(b'\r\n\r\n')
    if b' 200 ' not in head.split(b'\r\n')[0]:
        text = body.decode('utf-8', 'replace')
        if b'json' in head:
            text = json.loads(text)['error']
            if ERROR_CLASS.match(text) or not is_sentence(text):
                raise Bare(f'{head[:60]!r}: {text}')
        elif not answer:
            raise Bare('no answer')
        raise Clear(text[:300])
    if b'text/html' in head:
        raise Clear('the page itself')
    picture = json.loads(body)['pictures']['ensemble']
    colours = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
    table = {tuple(colour): i for i, colour in enumerate(COLOURS)}
    return [[table[tuple(pixel)] for pixel in row] for row in colours.tolist()]
