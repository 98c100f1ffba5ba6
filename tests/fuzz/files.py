"""Cases of damaged files: pictures, arrays, lists, videos, checkpoints, ONNX files, archives."""

from __future__ import annotations

import io
import os
import pickle
import random
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.registry import DATASETS
from PIL import Image
from scipy.io import savemat

from mmcen.apis import CENInferencer
from mmcen.apis.frames import find_frames
from mmcen.checkpoints import find_checkpoint
from mmcen.converters.archives import Archive
from mmcen.converters.matlab import read_mat
from mmcen.deploy import OnnxNetwork

from .mutate import damage, mutate
from .outcomes import Case, same
from .world import FACTS, FRAMES, SIZE, World, npy, small_graph

PLACE = Path('tmp')


class Payload:
    """What a pickle executes when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ('executed',)


def read(world: World, given: dict[str, Any], inferencer: Any = None) -> dict[str, np.ndarray]:
    """Inputs and outputs of a prediction."""
    (found,) = (inferencer or world.inferencer)(given)['predictions']
    return found.inputs | found.outputs


def undamaged(work: Callable[[], Any]) -> Any:
    """What a case gives before the damage; None if that is refused."""
    try:
        return work()
    except ValueError:
        return None


def picture(draw: random.Random, world: World) -> Case:
    """A file of a modality, damaged, or that of the other modality."""
    part = draw.choice(('rgb', 'depth'))
    suffix = draw.choice(list(world.pictures[part]))
    data, path = world.pictures[part][suffix], PLACE / f'x{suffix}'
    given = world.arrays | {part: path}
    path.write_bytes(data)
    wanted = undamaged(lambda: read(world, given))
    if draw.random() < 0.05:
        other = 'rgb' if part == 'depth' else 'depth'
        data, note = world.pictures[other].get(suffix, b''), 'the other modality'
    else:
        data, note = damage(data, draw)
    path.write_bytes(data)
    checksums = suffix.endswith('.png')
    return Case(
        lambda: read(world, given),
        lambda found: wanted is not None and same(found, wanted),
        lambda: not checksums and decodes(path),
        [path.name],
        f'{part}{suffix} {note}',
    )


def decodes(path: Path) -> bool:
    """Whether another reader takes the file for whole."""
    try:
        if path.suffix == '.npy':
            np.load(path)
        else:
            with Image.open(path) as image:
                image.load()
    except Exception:
        return False
    return True


def odd_arrays(array: np.ndarray, draw: random.Random) -> tuple[Any, str]:
    """An array that is another one, and whether it is read as the ``'same'``, is an ``'error'``, or
    ``'any'`` where nothing shows that it is wrong."""
    h, w = array.shape[:2]
    nan = np.full((h, w), np.nan, np.float32)
    one = (array if array.ndim == 2 else array[..., 0]).astype(np.float32) / 1000
    one[3, 4] = np.nan
    choices: list[tuple[Any, str]] = [
        (np.asfortranarray(array), 'same'),
        (array[::-1][::-1], 'same'),
        (array.astype(array.dtype.newbyteorder('>')), 'same'),
        (array[None], 'error'),
        (array[..., None, None], 'error'),
        (array[:0], 'error'),
        (array[:, :0], 'error'),
        (array.ravel(), 'error'),
        (np.float32(3), 'error'),
        (array.astype(np.complex64), 'error'),
        (array.astype('U5'), 'error'),
        (array.astype('datetime64[s]'), 'error'),
        (array > 99, 'error'),
        (np.repeat(array[..., None] if array.ndim == 2 else array, 5, -1), 'error'),
        (array[: h // 2], 'error'),  # of another size than the other modality
        (nan, 'error'),
        (-one - 1, 'error'),
        (np.full((h, w), np.inf, np.float32), 'error'),
        (np.full((h, w), 3e38, np.float32), 'error'),
        (one, 'any' if array.ndim == 2 else 'error'),
        (np.zeros((h, w), [('r', 'u1'), ('g', 'u1')]), 'error'),
    ]
    return draw.choice(choices)


def odd_npy(draw: random.Random, world: World) -> Case:
    """A ``.npy`` of an odd shape or type, an archive under its name, or a header that lies."""
    part, path = draw.choice(('rgb', 'depth')), PLACE / 'x.npy'
    array, verdict = odd_arrays(world.arrays[part], draw)
    data = npy(array)
    note = f'{part} {array.dtype} {array.shape}'
    if draw.random() < 0.4:
        verdict, note = 'error', f'{part} of another kind'
        header = data.replace(str(np.shape(array)).encode(), b'(99999999, 99999)')
        zipped = io.BytesIO()
        np.savez(zipped, array)
        evil = io.BytesIO()
        np.save(evil, np.array([Payload()], dtype=object), allow_pickle=True)
        pickled = pickle.dumps(Payload())
        own = world.files['own.pth']
        data = draw.choice((zipped.getvalue(), evil.getvalue(), pickled, own, header, data[:80]))
        if data == npy(array):
            return odd_npy(draw, world)
    path.write_bytes(data)
    return _judged(lambda: read(world, world.arrays | {part: path}), verdict, world, 'x.npy', note)


def array(draw: random.Random, world: World) -> Case:
    """Arrays, pictures, tensors and other objects in place of a file."""
    part = draw.choice(('rgb', 'depth'))
    own = world.arrays[part]
    value, verdict = odd_arrays(own, draw)
    if draw.random() < 0.6:
        tensor = torch.from_numpy(own.astype(np.int32) if part == 'depth' else own)
        channels_first = tensor.permute(2, 0, 1) if part == 'rgb' else tensor[None]
        value, verdict = draw.choice((
            (Image.fromarray(own), 'same'), (channels_first, 'same'), (own.tolist(), 'error'),
            (None, 'error'), (3, 'error'), (b'x', 'error'), ('', 'error'), ('no.png', 'error'),
            ([own], 'error'), ({'a': own}, 'error'), (torch.zeros(0), 'error'), ('rgb', 'error'),
            (Image.fromarray(own).resize((3, 5)), 'error'), (channels_first[None], 'error'),
            (channels_first.float() + float('nan'), 'error'), (torch.nn.Linear(1, 1), 'error'),
        ))  # fmt: skip
    given: Any = world.arrays | {part: value}
    if draw.random() < 0.1:
        verdict = 'error'
        given = draw.choice((None, 3, 'rgb/a.png', [], [given, None], value, {part: own}, {}))
        if isinstance(given, np.ndarray):
            given = [given]
    note = f'{part} {type(value).__name__} {getattr(value, "shape", "")} {str(given)[:40]!r}'
    return _judged(lambda: read(world, given), verdict, world, '', note)


def _judged(work: Callable[[], Any], verdict: str, world: World, name: str, note: str) -> Case:
    return Case(
        work,
        lambda found: verdict == 'same' and same(found, world.wanted),
        lambda: verdict == 'any',
        [name],
        note,
    )


ENCODINGS = ('utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-32', 'latin-1', 'cp437')


def frame_list(draw: random.Random, world: World) -> Case:
    """A list of frames in some encoding, with some line ends, perhaps damaged."""
    end = draw.choice(('\n', '\r\n', '\r', '\n\n', ' \n'))
    frames = draw.sample(FRAMES, draw.randint(1, len(FRAMES)))
    code = draw.choice(ENCODINGS)
    data, note = (end.join(frames) + draw.choice(('', end))).encode(code), ''
    damaged = draw.random() < 0.5
    if damaged:
        data, note = damage(data, draw)
    Path('list.txt').write_bytes(data)

    def work() -> list[str]:
        dataset = DATASETS.build(
            dict(
                type='RGBDFolderDataset',
                data_root='.',
                ann_file='list.txt',
                modalities=[dict(name='rgb', dir='rgb'), dict(name='depth', unit='mm')],
                metainfo=dict(classes=('a', 'b', 'c')),
            )
        )
        return [Path(dataset[i]['img_path']).stem for i in range(len(dataset))]

    return Case(
        work,
        lambda found: not damaged and found == frames,
        lambda: damaged and set(found_names(data)) <= set(FRAMES),
        ['list.txt', *FRAMES],
        f'{code} {end!r} {note}',
    )


def pairs(draw: random.Random, world: World) -> Case:
    """A list of pairs of files with time stamps, perhaps damaged."""
    frames = draw.sample(FRAMES, draw.randint(1, len(FRAMES)))
    end = draw.choice(('\n', '\r\n', '\n\n', ' \n'))
    lines = [f'{i}.5 rgb/{frame}.png {i}.51 depth/{frame}.png' for i, frame in enumerate(frames)]
    data, note = end.join(['# as in TUM RGB-D', *lines]).encode(), ''
    wanted = [{part: f'{part}/{frame}.png' for part in world.arrays} for frame in frames]
    damaged = draw.random() < 0.8
    if damaged:
        data, note = damage(data, draw)
    Path('pairs.txt').write_bytes(data)

    def work() -> list[dict[str, str]]:
        found = find_frames('pairs.txt', list(world.arrays))
        return [{part: str(file) for part, file in frame.files.items()} for frame in found]

    # stamps are read, but pair nothing; a comment that is none any more is an error
    return Case(
        work,
        lambda found: found == wanted,
        lambda: damaged,  # other files that exist
        ['pairs.txt', *FRAMES],
        f'{end!r} {note}',
    )


def video(draw: random.Random, world: World) -> Case:
    """A video beside a folder of depth files, damaged."""
    suffix, code = draw.choice((('.avi', 'MJPG'), ('.mp4', 'mp4v'), ('.mkv', 'FFV1')))
    path = PLACE / f'x{suffix}'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 10, SIZE[::-1])
    for shift in range(len(FRAMES)):
        writer.write(np.roll(world.arrays['rgb'], shift, 1))
    writer.release()

    def work() -> dict[str, np.ndarray]:
        found = world.inferencer({'rgb': path, 'depth': 'depth'})['predictions']
        return {f'{i} {n}': v for i, one in enumerate(found) for n, v in one.outputs.items()}

    wanted = undamaged(work)
    data, note = damage(path.read_bytes(), draw)
    path.write_bytes(data)
    return Case(
        work,
        lambda found: wanted is not None and same(found, wanted),
        lambda: True,  # videos have no checksums
        [path.name],
        f'{suffix} {note}',
    )


def found_names(data: bytes) -> list[str]:
    """Names in a list by any of the encodings that mark or prove themselves."""
    for code in ('utf-8-sig', 'utf-16', 'utf-32'):
        try:
            return [line.strip() for line in data.decode(code).splitlines() if line.strip()]
        except UnicodeError:
            continue
    return ['?']


def checkpoint(draw: random.Random, world: World) -> Case:
    """A checkpoint that is damaged, or holds something else."""
    path = PLACE / 'x.pth'
    if draw.random() < 0.6:
        data, note = damage(world.files['own.pth'], draw)
    else:
        data, note = _another_checkpoint(draw, world)
    path.write_bytes(data)

    def work() -> dict[str, torch.Tensor]:
        return dict(CENInferencer('own.py', path, show_progress=False).model.state_dict())

    return Case(work, lambda found: same(found, world.state), names=['x.pth', *MODEL], note=note)


MODEL = ('the checkpoint ',)  # of another model: what differs is named, the file was given


def _another_checkpoint(draw: random.Random, world: World) -> tuple[bytes, str]:
    state, meta = dict(world.state), {'dataset_meta': {'classes': ('a', 'b', 'c')}}
    name = draw.choice([n for n, v in state.items() if v.is_floating_point()])
    whole = {'state_dict': state, 'meta': meta}
    code = "import os\nos.mkdir('executed')\n"
    wider = torch.cat([state[name].reshape(-1), torch.ones(3)])
    choices: dict[str, Any] = {
        'nan': {'state_dict': {**state, name: state[name] * float('nan')}},
        'wider': {'state_dict': {**state, name: wider}},
        'missing': {'state_dict': {k: v for k, v in state.items() if k != name}},
        'renamed': {'state_dict': {k + 'x' * (k == name): v for k, v in state.items()}},
        'type': {'state_dict': {**state, name: 'text'}},
        'complex': {'state_dict': {**state, name: state[name] * 1j}},
        'a list': [state],
        'none': None,
        'empty': {},
        'state None': {'state_dict': None},
        'state list': {'state_dict': [1, 2]},
        'meta list': {'state_dict': {**state, name: wider}, 'meta': [1]},
        'code': {**whole, 'state_dict': {**state, name: wider}, 'meta': {'config': code}},
        'ours but code': {**whole, 'meta': {**meta, 'cfg': code, 'config': code}},
        'payload': {**whole, 'x': Payload()},
    }
    what = draw.choice(list(choices))
    buffer = io.BytesIO()
    torch.save(choices[what], buffer, _use_new_zipfile_serialization=draw.random() < 0.8)
    return buffer.getvalue(), f'{what} {name}'


def resumed(draw: random.Random, world: World) -> Case:
    """A work directory of three checkpoints, some of which are damaged."""
    folder = PLACE / 'work'
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    states, whole, note = {}, [], ''
    for i in (1, 2, 3):
        path = folder / f'epoch_{i}.pth'
        states[path.name] = {'w': torch.full((4,), float(i))}
        parts = dict(state_dict=states[path.name], meta=dict(epoch=i, iter=i), optimizer={})
        torch.save(parts | dict(message_hub={}), path)
        os.utime(path, (i, i))
        if draw.random() < 0.5:
            data, how = damage(path.read_bytes(), draw)
            path.write_bytes(data)
            os.utime(path, (i, i))
            note += f' {i}: {how}'
        else:
            whole.append(path.name)
    last = str((folder / 'epoch_3.pth').absolute()).encode()
    if draw.random() < 0.3:
        last, how = damage(last, draw)
        note += f' last: {how}'
    (folder / 'last_checkpoint').write_bytes(last)

    def right(found: tuple[Path | None, list[str]]) -> bool:
        path = found[0]
        if path is None or path.name < max(whole, default=''):
            return False
        return same(torch.load(path, weights_only=True)['state_dict'], states[path.name])

    return Case(lambda: find_checkpoint(folder), right, names=['work'], note=note)


MAKE = {'type': 'os.mkdir', 'path': 'executed'}
PIPELINES: tuple[list[dict[str, Any]], ...] = (
    [MAKE],
    [{'type': 'ForEachModality', 'transforms': [MAKE]}],
    [{'type': 'PackModalities', 'meta_keys': [MAKE]}],
    [{'type': 'mmengine.fileio.rmtree', 'dir_path': '.'}],
)


def _with_pipeline(stages: list[dict[str, Any]]) -> dict[str, Any]:
    dataset = FACTS['config']['test_dataloader']['dataset'] | {'pipeline': stages}
    return FACTS | {'config': {'test_dataloader': {'dataset': dataset}}}


def onnx_file(draw: random.Random, world: World) -> Case:
    """An ONNX file that is damaged, or whose facts are others."""
    path, free = PLACE / 'x.onnx', False
    if draw.random() < 0.6:
        data, note = damage(world.files['own.onnx'], draw)
    else:
        facts, note = mutate(FACTS, draw)
        if draw.random() < 0.3:
            facts, note = _with_pipeline(draw.choice(PIPELINES)), 'a pipeline'
        data, free = small_graph(facts).SerializeToString(), True
    path.write_bytes(data)

    def work() -> dict[str, np.ndarray]:
        inferencer = CENInferencer(OnnxNetwork(path, 1), show_progress=False)
        return read(world, world.arrays, inferencer)

    # what a file says of itself may be anything that is consistent
    return Case(work, lambda found: same(found, world.wanted), lambda: free, ['x.onnx'], note)


def archive(draw: random.Random, world: World) -> Case:
    """Files of MATLAB and archives, of which data sets are converted."""
    values = {'splits': np.arange(40.0).reshape(5, 8), 'names': np.array(['a', 'bc'], object)}
    kind = draw.choice(('mat', 'compressed mat', 'zip'))
    buffer, path = io.BytesIO(), PLACE / ('x.zip' if kind == 'zip' else 'x.mat')
    if kind == 'zip':
        with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as file:
            file.writestr('top/a.png', world.pictures['depth']['.png'])
    else:
        savemat(buffer, values, do_compression=kind != 'mat')

    def work() -> Any:
        if kind == 'zip':
            return Archive(PLACE, 'top', 'x.zip').read('a.png')
        found = read_mat(path, ['splits', 'names'])
        return {key: found[key] for key in ('splits', 'names')}

    path.write_bytes(buffer.getvalue())
    wanted = work()
    data, note = damage(buffer.getvalue(), draw)
    path.write_bytes(data)
    return Case(
        work,
        lambda found: same(found, wanted),
        lambda: kind == 'mat' or (kind != 'zip' and _inflates(data)),
        [path.name],
        f'{kind} {note}',
        # a process of its own reads it, and is ended if it has crashed
        () if kind == 'zip' else ('os.fork', 'os.kill', 'pickle.find_class'),
    )


def _inflates(data: bytes) -> bool:
    """Whether the parts of a compressed file of MATLAB are whole."""
    start = 128
    try:
        while start < len(data):
            length = int.from_bytes(data[start + 4 : start + 8], 'little')
            zlib.decompress(data[start + 8 : start + 8 + length])
            start += 8 + length
    except zlib.error:
        return False
    return True
