"""NYU Depth v2: the official archives to the folder that NYUv2Dataset reads.

Takes nyu_depth_v2_labeled.mat (HDF5, 1449 frames), splits.mat (795 to train, 654 to test) and
classMapping40.mat (894 raw labels to 40 classes; Gupta et al., 2013), and writes

    OUT/rgb/000001.png     colour, 8 bit, lossless
    OUT/depth/000001.png   depth, 16 bit, millimetres
    OUT/masks/000001.png   classes 1..40, 0 is void
    OUT/splits/train.txt   and test.txt: names of frames

It may be interrupted at any time: run the same command again and it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import cv2
import numpy as np
from rich.console import Console

try:
    import h5py
    from scipy.io import loadmat
except ImportError as error:
    sys.exit(f'the converter needs {error.name}: pip install h5py scipy')

from tools.common import exit_status, write
from tools.dataset_converters.common import make_folders, run_all

FOLDERS = ('rgb', 'depth', 'masks')
DEPTHS = {'filled': 'depths', 'raw': 'rawDepths'}
MAX_DEPTH = 10.0  # metres: the official data is cut there
CLASSES = 40


@dataclass(frozen=True)
class Job:
    """What one frame's conversion has to know."""

    mat: str
    out: Path
    depths: str
    class_of: np.ndarray  # (1 + raw labels,) uint8; void stays 0

    def files(self, frame: int) -> list[Path]:
        """The three files of frame 1, 2, ..."""
        return [self.out / folder / f'{frame:06d}.png' for folder in FOLDERS]

    def finished(self, frame: int) -> bool:
        """Whether all are written, which is whether they exist: they appear in one step."""
        return all(path.exists() and path.stat().st_size for path in self.files(frame))


def read_splits(path: Path, expected: dict[str, int]) -> dict[str, list[int]]:
    """Frame numbers by split, checked against the expected counts and each other."""
    content = read_mat(path, ('trainNdxs', 'testNdxs'))
    splits = {name: sorted(int(n) for n in content[f'{name}Ndxs'].ravel()) for name in expected}
    for name, frames in splits.items():
        if len(frames) != expected[name]:
            raise ValueError(
                f'{path} has {len(frames)} frames to {name}, but the official split has '
                f'{expected[name]}: take the official splits.mat, or say --expect-{name}'
            )
    every = sorted(splits['train'] + splits['test'])
    if every != list(range(1, len(every) + 1)):
        wrong = next(n for n, frame in enumerate(every, 1) if frame != n)
        raise ValueError(
            f'{path} does not hold each frame 1..{len(every)} once, frame {wrong} is the first '
            'that is missing or in both splits: take the official splits.mat'
        )
    return splits


def read_mapping(path: Path) -> np.ndarray:
    """Class of each raw label, (1 + raw labels,) uint8 with void first."""
    classes = read_mat(path, ('mapClass',))['mapClass'].ravel()
    if not classes.size or classes.min() < 1 or classes.max() > CLASSES:
        raise ValueError(f'{path}: mapClass is not within 1..{CLASSES}: take classMapping40.mat')
    return np.concatenate([[0], classes]).astype(np.uint8)


def read_mat(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """A small file of MATLAB 5 with all of ``keys``."""
    if not path.is_file():
        raise ValueError(f'{path} is missing: put it beside the .mat, or name it (see --help)')
    try:
        content = loadmat(path)
    except Exception as error:  # scipy raises what its parser stumbles over
        raise ValueError(f'{path} cannot be read ({error}): fetch it again') from error
    for key in keys:
        if key not in content:
            raise ValueError(f'{path} has no {key}: it is another file, take the official one')
    return content


def check_source(job: Job, frames: int) -> None:
    """Hold names, types and shapes of the big file against the official layout."""
    if not Path(job.mat).is_file():
        raise ValueError(f'{job.mat} is missing: download nyu_depth_v2_labeled.mat (2.8 GB) first')
    layout = {'images': ('u', 4), job.depths: ('f', 3), 'labels': ('u', 3)}
    try:
        with h5py.File(job.mat) as source:
            missing = [name for name in layout if name not in source]
            found = {n: (source[n].shape, source[n].dtype) for n in layout if n in source}
    except OSError as error:
        raise ValueError(f'{job.mat} cannot be read ({error}): download it again') from error
    if missing:
        raise ValueError(f'{job.mat} has no {missing[0]}: it is not nyu_depth_v2_labeled.mat')
    size = found['labels'][0][-2:]
    for name, (kind, ndim) in layout.items():
        shape, dtype = found[name]
        wanted = (frames, 3, *size) if ndim == 4 else (frames, *size)
        if shape != wanted or dtype.kind != kind:
            raise ValueError(
                f'{job.mat}: {name} is {dtype} of shape {shape}, but for {frames} frames it is of '
                f'kind {kind!r} and shape {wanted}: download it again'
            )


def convert_frame(job: Job, frame: int) -> None:
    """Check one frame and write its three files."""
    try:
        with h5py.File(job.mat) as source:
            # MATLAB counts columns first: width before height.
            colour = source['images'][frame - 1].transpose(2, 1, 0)  # (H, W, 3)
            depth = source[job.depths][frame - 1].T  # (H, W)
            label = source['labels'][frame - 1].T  # (H, W)
    except OSError as error:
        raise ValueError(f'{job.mat}: frame {frame} cannot be read ({error})') from error
    if not (depth.min() >= 0 and depth.max() <= MAX_DEPTH):  # so that NaN is refused, too
        raise ValueError(
            f'{job.mat}: frame {frame} has depths {depth.min():g}..{depth.max():g}, but they are '
            f'metres within 0..{MAX_DEPTH:g}: download it again'
        )
    if label.max() >= len(job.class_of):
        raise ValueError(
            f'{job.mat}: frame {frame} has raw label {label.max()}, but the class mapping ends at '
            f'{len(job.class_of) - 1}: take the classMapping40.mat that belongs to it'
        )
    millimetres = np.rint(depth * np.float32(1000)).astype(np.uint16)
    pictures = (np.ascontiguousarray(colour[..., ::-1]), millimetres, job.class_of[label])
    for path, picture in zip(job.files(frame), pictures, strict=True):
        write(path, cv2.imencode('.png', picture)[1].tobytes())


def prepare_out(job: Job, overwrite: bool) -> None:
    """Make the folders; refuse to mix frames of two sources in them."""
    make_folders(job.out, (*FOLDERS, 'splits'))
    note = job.out / 'source.json'
    source = json.dumps({'bytes': Path(job.mat).stat().st_size, 'depth': job.depths})
    if overwrite:  # a frame without its mask counts as not finished, now and after a stop
        for path in (*(job.out / 'masks').glob('*.png'), *(job.out / 'splits').glob('*.txt')):
            path.unlink()
    elif note.exists() and note.read_text() != source:
        raise ValueError(
            f'{job.out} was made from another source or depth ({note.read_text()}, now {source}): '
            'choose another --out, or --overwrite'
        )
    write(note, source.encode())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('mat', help='nyu_depth_v2_labeled.mat')
    parser.add_argument('--splits', type=Path, help='splits.mat (default: beside the .mat)')
    parser.add_argument('--mapping', type=Path, help='classMapping40.mat (default: beside it)')
    parser.add_argument(
        '--out', type=Path, default=Path('data/nyudv2'), help='default: %(default)s'
    )
    parser.add_argument(
        '--depth', choices=DEPTHS, default='filled', help='holes filled (default), or as measured'
    )
    parser.add_argument('--workers', type=int, default=min(8, os.cpu_count() or 1))
    parser.add_argument('--overwrite', action='store_true', help='convert finished frames again')
    parser.add_argument('--expect-train', type=int, default=795, help='default: %(default)s')
    parser.add_argument('--expect-test', type=int, default=654, help='default: %(default)s')
    args = parser.parse_args()
    if args.workers < 1:
        parser.error(f'--workers {args.workers} is below 1')
    return args


def run(args: argparse.Namespace, console: Console) -> None:
    beside = Path(args.mat).parent
    expected = {'train': args.expect_train, 'test': args.expect_test}
    splits = read_splits(args.splits or beside / 'splits.mat', expected)
    class_of = read_mapping(args.mapping or beside / 'classMapping40.mat')
    job = Job(args.mat, args.out, DEPTHS[args.depth], class_of)
    frames = sorted(splits['train'] + splits['test'])
    check_source(job, len(frames))
    prepare_out(job, args.overwrite)
    left = [frame for frame in frames if not job.finished(frame)]
    if len(left) < len(frames):
        console.print(f'{len(frames) - len(left)} frames are finished already')
    # threads serve: most of the time is PNG encoding
    run_all(ThreadPoolExecutor(args.workers), partial(convert_frame, job), left, console)
    for name, of_split in splits.items():  # last, because they say that the set is whole
        lines = ''.join(f'{frame:06d}\n' for frame in of_split)
        write(args.out / 'splits' / f'{name}.txt', lines.encode())
    counts = ', '.join(f'{len(of_split)} {name}' for name, of_split in splits.items())
    console.print(f'{len(frames)} frames ({counts}) in {args.out}')


def main() -> int:
    args = parse_args()
    return exit_status(lambda: run(args, Console(highlight=False, soft_wrap=True)))


if __name__ == '__main__':
    sys.exit(main())
