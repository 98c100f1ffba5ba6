"""Converters and trainings by their command lines, in this process, which is quicker."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from uuid import uuid4

import cv2
import numpy as np
import pytest

from mmcen import cli
from mmcen.datasets.transforms.reading import read_array
from tests.training import ROOT, load


def call(converter: str, *words: str) -> int:
    """Exit status of ``mmcen convert-data CONVERTER``."""
    return command('convert-data', converter, *words)


def command(*words: str) -> int:
    """Exit status of ``mmcen WORDS``."""
    try:
        return cli.main(words)
    except SystemExit as stop:
        return int(stop.code or 0)


def picture(*size: int, seed: int = 0, top: int = 256, dtype: str = 'uint8') -> np.ndarray:
    """Noise below ``top``."""
    return np.random.default_rng(seed).integers(0, top, size).astype(dtype)


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def zip_folder(folder: Path, archive: Path) -> None:
    """Replace a folder by the archive that has it, one file after the other."""
    with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as out:
        for path in sorted(folder.rglob('*')):
            out.write(path, path.relative_to(folder.parent))
            if path.is_file():
                path.unlink()
    for path in sorted(folder.rglob('*'), reverse=True):
        path.rmdir()
    folder.rmdir()


def contents(out: Path) -> dict[str, bytes]:
    """All files that a converter wrote, by place."""
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob('*') if p.is_file()}


def interrupt_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes while the picture after ``count`` is encoded."""
    encode, calls = cv2.imencode, []

    def encode_or_stop(*args: object) -> object:
        calls.append(1)
        if len(calls) > count:
            raise KeyboardInterrupt
        return encode(*args)

    monkeypatch.setattr(cv2, 'imencode', encode_or_stop)


def interrupt_and_go_on(
    tool: str, counts: tuple[str, ...], first: str, pictures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after some pictures and run again, a converter ends as if it were run once.

    Args:
        tool: it reads the folder ``official`` here.
        counts: its options.
        first: a frame that is finished by then.
        pictures: encoded until Ctrl-C comes.
        monkeypatch: pytest's.
    """
    assert call(tool, 'official', '--out', 'whole', *counts) == 0
    with monkeypatch.context() as patch:
        interrupt_after(pictures, patch)
        assert call(tool, 'official', '--out', 'parts', *counts) == 130
    parts, mask = Path('parts'), Path('parts', 'masks', f'{first}.png')
    assert not list(parts.glob('splits/*'))
    stamp = mask.stat().st_mtime_ns
    (parts / 'masks' / '.half.png.part').write_bytes(b'half')  # as a kill leaves it
    assert call(tool, 'official', '--out', 'parts', *counts) == 0
    assert mask.stat().st_mtime_ns == stamp
    assert contents(parts) == contents(Path('whole'))
    again = ('official', '--out', 'parts', *counts, '--overwrite')
    with monkeypatch.context() as patch:
        interrupt_after(pictures, patch)
        assert call(tool, *again) == 130
    assert mask.stat().st_mtime_ns > stamp
    stamp = mask.stat().st_mtime_ns
    assert call(tool, *again) == 0
    assert mask.stat().st_mtime_ns == stamp  # it went on
    assert contents(parts) == contents(Path('whole'))
    assert call(tool, *again) == 0
    assert mask.stat().st_mtime_ns > stamp  # and begins anew once it is finished


def train_small(config: str, *options: str) -> dict[str, float]:
    """Two steps and an evaluation of a shipped config below the current folder; its last scores.

    Small because of the options: batch 2, one epoch of 4 frames, an R18 of 8 channels.
    """
    name = str(uuid4())  # mmengine shares logs between trainings of one name in a process
    assert command(
        'train', str(ROOT / 'configs' / 'cen' / config), '--cfg-options', *options,
        f'experiment_name={name}', f'visualizer.name={name}', 'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1', 'train_dataloader.batch_size=2',
        *(f'{loader}_dataloader.num_workers=0' for loader in ('train', 'val', 'test')),
        'model.backbone.depth=18', 'model.backbone.base_channels=8',
        'model.backbone.init_cfg=None', 'model.backbone.norm_eval=False',
    ) == 0  # fmt: skip
    work_dir = Path('work_dirs') / Path(config).stem
    assert load(work_dir / 'epoch_1.pth')['meta']['iter'] == 2
    (scalars,) = work_dir.rglob('scalars.json')
    return json.loads(scalars.read_text().splitlines()[-1])


def stored(path: Path) -> np.ndarray:
    """A written picture as it is on disk."""
    return read_array(str(path), indices=True)
