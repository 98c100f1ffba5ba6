"""Convert the official archives of NYU Depth v2 to the folder that NYUv2Dataset reads.

Reads nyu_depth_v2_labeled.mat (HDF5, 1449 frames), splits.mat (795 to train, 654 to test) and
classMapping40.mat (894 raw labels to 40 classes; Gupta et al., 2013), and writes

    OUT/rgb/000001.png     colour, 8 bit, lossless
    OUT/depth/000001.png   depth, 16 bit, millimetres
    OUT/masks/000001.png   classes 1..40, 0 is void
    OUT/splits/train.txt   and test.txt: names of frames

It can be interrupted at any time; the same command continues where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

from .archives import as_png
from .common import Target, check_counts, converter_parser, expected, parse
from .matlab import open_mat73, read_mat

DEPTHS = {'filled': 'depths', 'raw': 'rawDepths'}
MAX_DEPTH = 10.0  # metres; the official data is clipped there
CLASSES = 40
COUNTS = {'train': 795, 'test': 654}


@dataclass(frozen=True)
class NYUv2Job:
    """Facts that the conversion of a frame needs."""

    mat: Path
    target: Target
    depths: str
    class_of: np.ndarray  # (1 + raw labels,) uint8; void stays 0


def read_splits(path: Path, counts: Mapping[str, int]) -> dict[str, list[str]]:
    """Return the names of frames of each split, after a check of counts and overlaps."""
    content = read_mat(path, ('trainNdxs', 'testNdxs'))
    splits = {name: sorted(int(n) for n in content[f'{name}Ndxs'].ravel()) for name in counts}
    check_counts(path, splits, counts)
    every = sorted(splits['train'] + splits['test'])
    if every != list(range(1, len(every) + 1)):
        wrong = next(n for n, frame in enumerate(every, 1) if frame != n)
        raise ValueError(
            f'{path} does not hold each frame 1..{len(every)} once, frame {wrong} is the first '
            'that is missing or in both splits: take the official splits.mat'
        )
    return {name: [f'{frame:06d}' for frame in frames] for name, frames in splits.items()}


def read_mapping(path: Path) -> np.ndarray:
    """Return the class of each raw label, (1 + raw labels,) uint8, void first."""
    classes = read_mat(path, ('mapClass',))['mapClass'].ravel()
    if not classes.size or classes.min() < 1 or classes.max() > CLASSES:
        raise ValueError(f'{path}: mapClass is not within 1..{CLASSES}: take classMapping40.mat')
    return np.concatenate([[0], classes]).astype(np.uint8)


def check_source(job: NYUv2Job, frames: int) -> None:
    """Compare names, types and shapes of the archive with the official layout."""
    layout = {'images': ('u', 4), job.depths: ('f', 3), 'labels': ('u', 3)}
    with open_mat73(job.mat) as source:
        missing = [name for name in layout if name not in source]
        found = {n: (source[n].shape, source[n].dtype) for n in layout if n in source}
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


def convert_frame(job: NYUv2Job, name: str) -> None:
    """Check one frame and write its three files."""
    frame = int(name)
    with open_mat73(job.mat, f'frame {frame}') as source:
        # MATLAB is column-major: width before height
        colour = source['images'][frame - 1].transpose(2, 1, 0)  # (H, W, 3)
        depth = source[job.depths][frame - 1].T  # (H, W)
        label = source['labels'][frame - 1].T  # (H, W)
    if not (depth.min() >= 0 and depth.max() <= MAX_DEPTH):  # also rejects NaN
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
    job.target.write(name, *map(as_png, pictures))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = converter_parser('nyuv2', __doc__, 'data/nyuv2', COUNTS)
    parser.add_argument('mat', type=Path, help='nyu_depth_v2_labeled.mat')
    parser.add_argument('--splits', type=Path, help='splits.mat (default: beside the .mat)')
    parser.add_argument('--mapping', type=Path, help='classMapping40.mat (default: beside it)')
    parser.add_argument(
        '--depth', choices=DEPTHS, default='filled', help='holes filled (default), or as measured'
    )
    return parse(parser, argv)


def run(args: argparse.Namespace, console: Console) -> None:
    splits = read_splits(args.splits or args.mat.with_name('splits.mat'), expected(args, COUNTS))
    class_of = read_mapping(args.mapping or args.mat.with_name('classMapping40.mat'))
    target = Target(args.out, dict.fromkeys(('rgb', 'depth', 'masks'), '.png'))
    job = NYUv2Job(args.mat, target, DEPTHS[args.depth], class_of)
    check_source(job, sum(map(len, splits.values())))
    source = {'bytes': args.mat.stat().st_size, 'depth': job.depths}
    target.fill(source, splits, partial(convert_frame, job), args, console)


def main(argv: Sequence[str] | None = None) -> None:
    run(parse_args(argv), Console(highlight=False, soft_wrap=True))
