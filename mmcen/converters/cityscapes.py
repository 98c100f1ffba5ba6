"""Convert the official Cityscapes archives to the folder that CityscapesRGBDDataset reads.

Reads from FOLDER, downloaded (NAME_trainvaltest.zip) or extracted (NAME/),

    leftImg8bit   colour
    disparity     disparity, 16 bit, (value - 1) / 256 pixels, 0 is invalid
    gtFine        labels 0..33 in *_labelIds.png

with 2,975 training and 500 validation frames, and writes, named by the frame,

    OUT/rgb/aachen_000000_000019.png         colour, the archive's own file
    OUT/disparity/aachen_000000_000019.png   16 bit, value / 256 pixels, 0 is invalid
    OUT/masks/aachen_000000_000019.png       the 19 classes, trainIds 0..18, 255 is void
    OUT/splits/train.txt                     and val.txt: names of frames

It can be interrupted at any time; the same command continues where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from rich.console import Console

from .archives import Archive, as_png, check_sizes, decode
from .common import Target, check_counts, converter_parser, expected, parse

COUNTS = {'train': 2975, 'val': 500}
SUFFIXES = {
    'leftImg8bit': '_leftImg8bit.png',
    'disparity': '_disparity.png',
    'gtFine': '_gtFine_labelIds.png',
}
MAX_DISPARITY = 128  # pixels; limit of the official stereo algorithm
LABELS = 34
# labels of the classes 0..18, from cityscapesscripts/helpers/labels.py
CLASS_LABELS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
VOID = 255
TRAIN_IDS = np.full(LABELS, VOID, np.uint8)
TRAIN_IDS[list(CLASS_LABELS)] = range(len(CLASS_LABELS))


@dataclass(frozen=True)
class CityscapesJob:
    """Facts that the conversion of a frame needs."""

    archives: Mapping[str, Archive]
    stems: Mapping[str, str]  # train/aachen/aachen_000000_000019 by name of the frame
    size: tuple[int, int]  # (H, W)
    target: Target

    def pictures(self, name: str) -> Iterator[tuple[str, bytes]]:
        """Yield file names and contents of a frame, in the order of SUFFIXES."""
        for part, archive in self.archives.items():
            file = self.stems[name] + SUFFIXES[part]
            yield f'{part}/{file}', archive.read(file)


def list_frames(colour: Archive, split: str) -> dict[str, str]:
    """Return the path of each frame of a split, by its name."""
    suffix = SUFFIXES['leftImg8bit']
    stems = [file.removesuffix(suffix) for file in colour.files(f'{split}/*/*{suffix}')]
    return {PurePosixPath(stem).name: stem for stem in stems}


def check_values(disparity: np.ndarray, label: np.ndarray, name: str) -> None:
    """Reject values that official disparities or labels do not have."""
    if disparity.max() > 1 + 256 * MAX_DISPARITY:
        raise ValueError(
            f'frame {name} has a disparity of {(int(disparity.max()) - 1) / 256:g} pixels, but the '
            f'official ones are within 0..{MAX_DISPARITY}: take disparity_trainvaltest.zip'
        )
    if label.max() >= LABELS:
        raise ValueError(
            f'frame {name} has label {label.max()}, but they are within 0..{LABELS - 1}: take the '
            'official gtFine_trainvaltest.zip'
        )


def convert_frame(job: CityscapesJob, name: str) -> None:
    """Check one frame and write its three files."""
    (file, colour), (of_disparity, data), (of_label, mask) = job.pictures(name)
    rgb = decode(colour, file, 'uint8', (3,))
    disparity = decode(data, of_disparity, 'uint16')
    label = decode(mask, of_label, 'uint8')
    sizes = {'colour': rgb.shape[:2], 'disparity': disparity.shape, 'label': label.shape}
    check_sizes(name, sizes | {'official': job.size})
    check_values(disparity, label, name)
    stored: np.ndarray = disparity - (disparity > 0).astype(np.uint16)
    job.target.write(name, colour, as_png(stored), as_png(TRAIN_IDS[label]))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = converter_parser('cityscapes', __doc__, 'data/cityscapes_rgbd', COUNTS)
    parser.add_argument('folder', type=Path, metavar='FOLDER', help='folder of the archives')
    parser.add_argument(
        '--expect-size', nargs=2, type=int, default=(1024, 2048), metavar=('H', 'W'),
        help='size of the frames, default: %(default)s',
    )  # fmt: skip
    return parse(parser, argv)


def run(args: argparse.Namespace, console: Console) -> None:
    archives = {part: Archive(args.folder, part, f'{part}_trainvaltest.zip') for part in SUFFIXES}
    stems = {split: list_frames(archives['leftImg8bit'], split) for split in COUNTS}
    splits = {split: list(of_split) for split, of_split in stems.items()}
    check_counts(archives['leftImg8bit'].place, splits, expected(args, COUNTS))
    every = {name: stem for of_split in stems.values() for name, stem in of_split.items()}
    for part, archive in archives.items():
        archive.check(stem + SUFFIXES[part] for stem in every.values())
    target = Target(args.out, dict.fromkeys(('rgb', 'disparity', 'masks'), '.png'))
    size = tuple(args.expect_size)
    source = {'set': 'Cityscapes', 'size': size}
    work = partial(convert_frame, CityscapesJob(archives, every, size, target))
    target.fill(source, splits, work, args, console)


def main(argv: Sequence[str] | None = None) -> None:
    run(parse_args(argv), Console(highlight=False, soft_wrap=True))
