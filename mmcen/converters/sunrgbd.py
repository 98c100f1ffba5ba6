"""Convert the official SUN RGB-D archive and toolbox to the folder that SUNRGBDDataset reads.

Reads from FOLDER

    SUNRGBD.zip              10,335 frames of four kinds of camera
    SUNRGBDtoolbox.zip       toolbox with
        SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat            which frame is in which folder
        SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat           label maps (HDF5)
        SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat       5,285 frames to train, 5,050 to test

or the extracted folders SUNRGBD/ and SUNRGBDtoolbox/,

and writes, named by the toolbox's number of a frame,

    OUT/rgb/000001.jpg     colour, the archive's own file
    OUT/depth/000001.png   depth, 16 bit, millimetres
    OUT/masks/000001.png   classes 1..37, 0 is void
    OUT/splits/train.txt   and test.txt: names of frames

The archive stores depth with its bits rotated by three, metres = ((d >> 3) | (d << 13)) / 1000 in
16 bits. The converter writes millimetres, clipped at 8 m as in the toolbox's read3dPoints.m.

It can be interrupted at any time; the same command continues where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from rich.console import Console

from .archives import Archive, as_png, check_sizes, decode
from .common import Target, check_counts, converter_parser, expected, parse
from .matlab import open_mat73, read_mat

COUNTS = {'train': 5285, 'test': 5050}
CLASSES = 37
DEPTHS = {'filled': 'depth_bfx', 'raw': 'depth'}
MAX_DEPTH = 8000  # millimetres
FAR = 16384  # millimetres; no camera of the set measures more
LABELS = 'SUNRGBD2Dseg/seglabel'


@dataclass(frozen=True)
class Files:
    """Paths of a frame in the archive, relative to its top folder."""

    folder: str  # as allsplit.mat names it
    colour: str
    depth: str


@dataclass(frozen=True)
class Mat:
    """A file of the toolbox."""

    path: Path
    data: bytes

    @classmethod
    def read(cls, toolbox: Archive, file: str) -> Mat:
        return cls(toolbox.place / file, toolbox.read(file))


@dataclass(frozen=True)
class SUNRGBDJob:
    """Facts that the conversion of a frame needs."""

    archive: Archive
    labels: Mat
    files: Mapping[str, Files]  # by name of the frame
    target: Target


def text(cell: np.ndarray) -> str:
    """Return the text in a cell of MATLAB."""
    return str(np.ravel(cell)[0]) if np.size(cell) else ''


def in_archive(path: str) -> str:
    """Make a path of the authors' disk, /n/fs/sun3d/data/SUNRGBD/..., relative to the archive."""
    return str(PurePosixPath(path.partition('SUNRGBD/')[2]))


def read_frames(mat: Mat, depths: str) -> dict[str, Files]:
    """Return the files of every frame by its number in the toolbox, 000001 and so on."""
    meta = read_mat(mat.path, ('SUNRGBDMeta',), mat.data)['SUNRGBDMeta'].ravel()
    fields = ('rgbpath', 'depthname')
    missing = [field for field in fields if field not in (meta.dtype.names or ())]
    if missing:
        raise ValueError(f'{mat.path}: SUNRGBDMeta has no {missing[0]}: take the official toolbox')
    frames = {}
    for number, (colour, depth) in enumerate(zip(*(meta[field] for field in fields), strict=True)):
        image = PurePosixPath(in_archive(text(colour)))
        folder = str(image.parent.parent)  # of FOLDER/image/NAME.jpg
        if folder == '.' or not text(depth):
            raise ValueError(
                f'{mat.path}: frame {number + 1} has rgbpath {text(colour)!r} and depthname '
                f'{text(depth)!r}: take the official toolbox'
            )
        frames[f'{number + 1:06d}'] = Files(folder, str(image), f'{folder}/{depths}/{text(depth)}')
    return frames


def read_splits(
    mat: Mat, frames: Mapping[str, Files], counts: Mapping[str, int]
) -> dict[str, list[str]]:
    """Return the names of frames of each split, after a check of counts and overlaps."""
    content = read_mat(mat.path, [f'all{split}' for split in counts], mat.data)
    folders = {
        split: {in_archive(text(cell)) for cell in content[f'all{split}'].ravel()}
        for split in counts
    }
    splits: dict[str, list[str]] = {split: [] for split in counts}
    for name, files in frames.items():
        found = [split for split in counts if files.folder in folders[split]]
        if len(found) != 1:
            raise ValueError(
                f'{mat.path} has frame {name}, {files.folder}, in {len(found)} splits, but each is '
                'in one: take the official toolbox'
            )
        splits[found[0]].append(name)
    check_counts(mat.path, splits, counts)
    return splits


def check_labels(mat: Mat, frames: int) -> None:
    """Compare the number of label maps with the number of frames."""
    with open_mat73(mat.path, data=mat.data) as source:
        shape = source[LABELS].shape if LABELS in source else None
    if shape is None:
        raise ValueError(f'{mat.path} has no {LABELS}: it is another file, take the official one')
    if max(shape) != frames:
        raise ValueError(
            f'{mat.path} has {max(shape)} label maps, but SUNRGBDMeta.mat has {frames} frames: '
            'take both from one toolbox'
        )


def read_label(mat: Mat, frame: int) -> np.ndarray:
    """Read the label map of frame 1, 2, ...: (H, W) uint8, 0 is void."""
    with open_mat73(mat.path, f'frame {frame}', mat.data) as source:
        labels = source[LABELS]  # references, in a row or a column
        reference = labels[np.unravel_index(frame - 1, labels.shape)]
        label = source[reference][:].T  # MATLAB is column-major
    if label.min() < 0 or label.max() > CLASSES or np.any(label % 1):
        raise ValueError(
            f'{mat.path}: frame {frame} has labels {label.min():g}..{label.max():g}, but they are '
            f'whole numbers within 0..{CLASSES}: take the official toolbox'
        )
    return label.astype(np.uint8)


def to_millimetres(stored: np.ndarray, name: str) -> np.ndarray:
    """Undo the rotation by three bits, and clip at 8 m.

    Args:
        stored: Depth of the archive, (H, W) uint16.
        name: Name of the file, for errors.
    """
    depth = (stored >> 3) | (stored << 13)
    if np.count_nonzero(depth > FAR) > np.count_nonzero(depth) / 2:
        raise ValueError(
            f'{name} has more than {FAR / 1000:.0f} m in most of its pixels, so its bits are not '
            'rotated by three as in the official archive: fetch it again'
        )
    return np.minimum(depth, MAX_DEPTH)


def convert_frame(job: SUNRGBDJob, name: str) -> None:
    """Check one frame and write its three files."""
    files = job.files[name]
    colour = job.archive.read(files.colour)
    stored = decode(job.archive.read(files.depth), files.depth, 'uint16')
    label = read_label(job.labels, int(name))
    rgb = decode(colour, files.colour, 'uint8', (3,))
    sizes = {'colour': rgb.shape[:2], 'depth': stored.shape, 'label': label.shape}
    check_sizes(f'{name} ({files.folder})', sizes)
    depth = to_millimetres(stored, files.depth)
    job.target.write(name, colour, as_png(depth), as_png(label))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = converter_parser('sunrgbd', __doc__, 'data/sunrgbd', COUNTS)
    parser.add_argument('folder', type=Path, metavar='FOLDER', help='folder of the archives')
    parser.add_argument('--toolbox', type=Path, help='folder of the toolbox (default: FOLDER)')
    parser.add_argument(
        '--depth', choices=DEPTHS, default='filled', help='holes filled (default), or as measured'
    )
    return parse(parser, argv)


def run(args: argparse.Namespace, console: Console) -> None:
    console.print('reading the toolbox')
    toolbox = Archive(args.toolbox or args.folder, 'SUNRGBDtoolbox', 'SUNRGBDtoolbox.zip')
    labels = Mat.read(toolbox, 'Metadata/SUNRGBD2Dseg.mat')
    frames = read_frames(Mat.read(toolbox, 'Metadata/SUNRGBDMeta.mat'), DEPTHS[args.depth])
    split_file = Mat.read(toolbox, 'traintestSUNRGBD/allsplit.mat')
    splits = read_splits(split_file, frames, expected(args, COUNTS))
    check_labels(labels, len(frames))
    archive = Archive(args.folder, 'SUNRGBD', 'SUNRGBD.zip')
    archive.check(path for files in frames.values() for path in (files.colour, files.depth))
    target = Target(args.out, {'rgb': '.jpg', 'depth': '.png', 'masks': '.png'})
    source = {'set': 'SUN RGB-D', 'bytes': len(labels.data), 'depth': DEPTHS[args.depth]}
    work = partial(convert_frame, SUNRGBDJob(archive, labels, frames, target))
    target.fill(source, splits, work, args, console)


def main(argv: Sequence[str] | None = None) -> None:
    run(parse_args(argv), Console(highlight=False, soft_wrap=True))
