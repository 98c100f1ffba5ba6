"""The cache of decoded frames: same samples, shared, never wrong, clear when it cannot go on."""

from __future__ import annotations

import copy
import errno
import gc
import multiprocessing
import os
import pickle
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from mmcen.datasets import NYUv2Dataset, cache
from tests.frames import write_frames

LOADING = [{'type': 'LoadModalities'}, {'type': 'LoadLabel'}]
FRAMES = 5  # no multiple of the workers below, so that each frame meets each of them
FILES = 3 * FRAMES
fork = multiprocessing.get_context('fork')


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Frames of 12x16 in the layout of NYUv2, and an empty folder for a cache."""
    write_frames(tmp_path, FRAMES, 12, 16)
    (tmp_path / 'cache').mkdir()
    return tmp_path


def build(root: Path, where: object = None, **kwargs: object) -> NYUv2Dataset:
    return NYUv2Dataset(data_root=str(root), **{'pipeline': LOADING, 'cache': where, **kwargs})


def arrays(sample: dict) -> list[np.ndarray]:
    return [*sample['modalities'].values(), sample['gt_seg_map']]


def assert_same(sample: dict, expected: dict) -> None:
    for a, b in zip(arrays(sample), arrays(expected), strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob('*/*.npy'))


def spoil(path: Path) -> None:
    """Other bytes, but the time and size that the file had: whoever reads it will notice."""
    facts = path.stat()
    path.write_bytes(b'x' * facts.st_size)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


@pytest.mark.parametrize('where', ['memory', True, 'folder'])
def test_second_time_comes_from_the_cache(made: Path, where: object) -> None:
    plain = build(made)
    expected = [plain[i] for i in range(FRAMES)]
    cached = build(made, str(made / 'cache') if where == 'folder' else where)
    for i in range(FRAMES):
        assert_same(cached[i], expected[i])
    for folder in ('rgb', 'depth', 'masks'):
        for path in (made / folder).iterdir():
            spoil(path)
    for i in range(FRAMES):
        assert_same(cached[i], expected[i])
    with pytest.raises(ValueError, match='cannot be read'):
        plain[0]
    assert len(kept(cached.cache.folder)) == FILES


def test_a_folder_serves_the_next_training(made: Path) -> None:
    where = str(made / 'cache')
    expected = build(made, where)[1]
    spoil(made / 'rgb' / '1.jpg')
    assert_same(build(made, where)[1], expected)


@pytest.mark.parametrize('where', [None, False])
def test_none_by_default(made: Path, where: object) -> None:
    dataset = build(made, where)
    assert dataset.cache is None
    assert 'cache' not in dataset.get_data_info(0)


def test_a_changed_source_is_noticed(made: Path) -> None:
    dataset = build(made, str(made / 'cache'))
    before = dataset[2]
    new = np.full((12, 16), 1234, np.uint16)
    cv2.imwrite(f'{made}/depth/2.png', new)
    later = time.time_ns() + 10**9
    os.utime(made / 'depth' / '2.png', ns=(later, later))
    after = dataset[2]
    assert after['modalities']['depth'][..., 0] == pytest.approx(1.234)
    assert np.array_equal(after['modalities']['rgb'], before['modalities']['rgb'])
    assert len(kept(made / 'cache')) == 3  # the old one is gone


def test_writing_into_a_sample_spoils_nothing(made: Path) -> None:
    dataset = build(made, str(made / 'cache'))
    expected = build(made)[0]
    for _ in range(2):
        sample = dataset[0]
        assert_same(sample, expected)
        for array in arrays(sample):
            array[:] = 0


def test_palettes_are_read_in_both_ways(tmp_path: Path) -> None:
    """The same file as colour and as label."""
    source, folder = tmp_path / 'a.png', cache.FrameCache(tmp_path)
    source.write_bytes(b'a')
    colours = folder.fetch(str(source), lambda: np.zeros((2, 3, 3), np.uint8), 'values')
    indices = folder.fetch(str(source), lambda: np.ones((2, 3), np.uint8), 'indices')
    assert (colours.shape, indices.shape) == ((2, 3, 3), (2, 3))


# --- many processes


@pytest.mark.filterwarnings('ignore:This DataLoader will create')  # more than this machine's cores
@pytest.mark.parametrize('where', ['memory', 'folder'])
def test_workers_share_it(made: Path, where: str) -> None:
    """Every frame goes to every worker: it is kept once, and all get what is in its files."""
    plain = build(made)
    dataset = build(made, 'memory' if where == 'memory' else str(made / 'cache'))
    loader = DataLoader(
        dataset,
        sampler=[*range(FRAMES)] * 4,
        num_workers=4,
        prefetch_factor=4,
        collate_fn=pseudo_collate,
        multiprocessing_context=fork,
    )
    for _ in range(2):  # workers of the second epoch are new processes
        for i, batch in enumerate(loader):
            expected = plain[i % FRAMES]
            for name, array in batch['modalities'].items():
                assert np.array_equal(array[0], expected['modalities'][name])
            assert np.array_equal(batch['gt_seg_map'][0], expected['gt_seg_map'])
    assert len(kept(dataset.cache.folder)) == FILES
    assert not list(dataset.cache.folder.glob('*/.*'))


def race(dataset: NYUv2Dataset, expected: list[dict], start: object, wrong: object) -> None:
    start.wait()
    for _ in range(6):
        for path in kept(dataset.cache.folder):  # so that all write, all the time
            path.unlink(missing_ok=True)
        for i in range(FRAMES):
            try:
                assert_same(dataset[i], expected[i])
            except BaseException:
                wrong.value = 1
                raise


def test_two_writers_of_one_file(made: Path) -> None:
    dataset = build(made, str(made / 'cache'))
    expected = [build(made)[i] for i in range(FRAMES)]
    start, wrong = fork.Barrier(3), fork.Value('i', 0)
    workers = [fork.Process(target=race, args=(dataset, expected, start, wrong)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 3
    assert not wrong.value
    for path in kept(made / 'cache'):
        assert np.load(path).size


def die_writing(dataset: NYUv2Dataset) -> None:
    os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    dataset[0]


def test_a_killed_writer(made: Path) -> None:
    dataset = build(made, str(made / 'cache'))
    worker = fork.Process(target=die_writing, args=(dataset,))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    (part,) = (made / 'cache').glob('*/.*.part')
    assert not kept(made / 'cache')
    assert_same(dataset[0], build(made)[0])
    build(made, str(made / 'cache'))
    assert part.exists()  # it could be that of a training at work
    os.utime(part, (0, 0))
    build(made, str(made / 'cache'))
    assert not part.exists()


@pytest.mark.parametrize('length', [0, 5, 100, -1])
def test_a_file_that_is_not_whole(made: Path, length: int) -> None:
    """As after a power failure."""
    dataset = build(made, str(made / 'cache'))
    expected = dataset[0]
    for path in kept(made / 'cache'):
        path.write_bytes(path.read_bytes()[:length])
    for _ in range(2):
        assert_same(dataset[0], expected)


def test_copies_use_the_same_folder(made: Path) -> None:
    dataset = build(made, 'memory')
    folder = dataset.cache.folder
    sent = pickle.loads(pickle.dumps(dataset))  # as to a worker that is spawned
    assert sent.cache.folder == folder
    del sent
    part = copy.deepcopy(dataset)
    del dataset
    gc.collect()
    assert folder.is_dir()
    assert_same(part[0], build(made)[0])
    del part
    gc.collect()
    assert not folder.exists()


# --- what is left in shared memory


def leave(folder: object, hold: object) -> None:
    kept_alive = cache.MemoryCache()
    folder.send(str(kept_alive.folder))
    hold.wait()
    os._exit(1)  # as if killed


def test_what_a_killed_process_left_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, 'SHARED_MEMORY', tmp_path)
    (ours, theirs), hold = fork.Pipe(), fork.Event()
    other = fork.Process(target=leave, args=(theirs, hold))
    other.start()
    folder = Path(ours.recv())
    mine = cache.MemoryCache()
    assert folder.is_dir()  # its process is at work
    hold.set()
    other.join()
    assert folder.is_dir()
    again = cache.MemoryCache()
    assert not folder.exists()
    assert mine.folder.is_dir()
    assert again.folder.is_dir()


def test_elsewhere_without_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, 'SHARED_MEMORY', tmp_path / 'none')
    monkeypatch.setattr(cache.tempfile, 'tempdir', str(tmp_path))
    assert cache.MemoryCache().folder.parent == tmp_path


# --- when it cannot go on


def test_missing_folder(made: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'cache folder .*none does not exist: make it fi'):
        build(made, str(made / 'none'))


def full(_: int) -> None:
    raise OSError(errno.ENOSPC, 'No space left on device')


def test_full_disk(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = build(made, str(made / 'cache'))
    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', full)
        with pytest.raises(OSError, match=r'cache cannot be written \(No space .*make room') as why:
            dataset[0]
    assert why.value.errno == errno.ENOSPC
    assert not [path for path in (made / 'cache').rglob('*') if path.is_file()]
    assert_same(dataset[0], build(made)[0])


def test_folder_that_went(made: Path) -> None:
    dataset = build(made, str(made / 'cache'))
    shutil.rmtree(made / 'cache')
    with pytest.raises(FileNotFoundError, match=r'cannot be written \(No such file or directory\)'):
        dataset[0]


@pytest.mark.parametrize(
    ('read', 'error', 'message'),
    [
        (lambda: np.zeros(3), ValueError, 's3://bucket/a.png is not a local file'),
        (Path('nowhere.png').read_bytes, FileNotFoundError, 'nowhere.png'),  # as loading tells it
    ],
)
def test_no_local_file(tmp_path: Path, read: Callable, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        cache.FrameCache(tmp_path).fetch('s3://bucket/a.png', read)
