"""Write pseudo labels of NJUD, NLPR, STERE and DUTLF-Depth, without any annotation.

Reads the sets as they are distributed, below one folder,

    ROOT/NJU2K_TRAIN/RGB/*.jpg       and depth/, GT/; same for NJU2K_TEST, NLPR_*, STERE
    ROOT/DUT-RGBD/train_data/        train_images/, train_depth/, train_masks/; same for test_data

counts their frames, checks that colour, depth and existing masks have the same size, and writes for
every frame

    ROOT/NJU2K_TRAIN/pseudo/000001_left.png    8 bit, 255 is salient

and a record of how it was made. Masks are only used to measure the labels. Copies of the sets
differ in which depth values are near, so a sample of these frames, and of all existing test sets,
is examined first. A set that seems inverted is an error, unless --near states its direction. It can
be interrupted at any time; the same command continues where it stopped.

Examples:
    mmcen convert-data saliency --sets njud nlpr
    mmcen convert-data saliency --sets stere --split test --near stere=high
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from mmengine.registry import init_default_scope
from rich.console import Console

from ..datasets import (
    LoadMask,
    LoadModalities,
    LoadPseudoLabel,
    RelativeDepth,
    SaliencyDataset,
    data_place,
)
from ..datasets.saliency import SETS
from ..files import write
from ..saliency import NEAR
from .common import command_parser, made_from, make_folders
from .processes import run_in_processes

LOOK = 50  # number of frames that are examined for inverted depth
DOUBT = 0.35  # smallest plausible share of frames whose middle is near


def load(info: dict) -> dict:
    """Load colour and relative depth of a frame, and its mask if it has one."""
    sample = RelativeDepth()(LoadModalities()(dict(info)))
    return LoadMask()(sample) if 'seg_map_path' in info else sample


def make_label(info: dict) -> float | None:
    """Check a frame and write its label to ``info['out']``, unless it exists.

    Returns:
        Mean absolute error of the label, 0..1; None without a mask.
    """
    sample, out = load(info), Path(info['out'])
    make = LoadPseudoLabel(key='label')
    if not out.exists():
        picture = np.rint(make(sample)['label'] * 255).astype(np.uint8)
        write(out, cv2.imencode('.png', picture)[1].tobytes())
    if 'gt_seg_map' not in sample:
        return None
    written = make(sample | {'pseudo_path': info['out']})['label']
    return float(np.abs(written - sample['gt_seg_map']).mean())


def middle_is_near(info: dict) -> bool:
    """Whether the middle of a frame is nearer on average than its outer quarter."""
    depth = load(info)['modalities']['depth'][..., 0]
    height, width = depth.shape
    inside = np.zeros(depth.shape, bool)
    inside[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    return bool(depth[inside].mean() > depth[~inside].mean())


def check_direction(name: str, split: str, args: argparse.Namespace, console: Console) -> None:
    """Reject a set whose depth seems inverted, unless --near states its direction."""
    dataset = SaliencyDataset(
        name, split, data_root=args.data_root, masks=False, near=args.near.get(name), count=0
    )
    chosen = range(0, len(dataset), max(1, len(dataset) // LOOK))
    share = np.mean([middle_is_near(dataset.get_data_info(index)) for index in chosen])
    if share >= DOUBT:
        return
    other = NEAR[dataset.near == NEAR[0]]
    doubt = f'{name}, {split}: the middle is farther than the rest in {1 - share:.0%} of frames'
    if name not in args.near:
        raise ValueError(
            f"{doubt}: if this copy's depth is inverted, give --near {name}={other}, and near="
            f'{other!r} in the config, too; if not, give --near {name}={dataset.near}'
        )
    console.print(f'warning: {doubt}; --near {name}={dataset.near} may be wrong')


def is_there(name: str, args: argparse.Namespace) -> bool:
    """Whether the test frames of a set exist."""
    return Path(args.data_root, SETS[name].part('rgb', 'test')).is_dir()


def convert(name: str, args: argparse.Namespace, console: Console) -> None:
    """Write the labels of a set."""
    root = Path(args.data_root)
    masks = SETS[name].part('mask', args.split)
    dataset = SaliencyDataset(
        name,
        args.split,
        data_root=str(root),
        masks=(root / masks).is_dir(),
        near=args.near.get(name),
        count=args.expect,
    )
    out = root / SETS[name].dirs[args.split] / args.pseudo
    frames = [dataset.get_data_info(index) for index in range(len(dataset))]
    for info in frames:
        info['out'] = str(out / f'{Path(info["img_path"]).stem}.png')
    make_folders(out, ('',))
    source = {'made': 'handmade_saliency', 'near': dataset.near}
    labels = sorted(out.glob('*.png'))
    with made_from(out, source, labels, args.overwrite, option='--pseudo'):
        finished = sum(Path(info['out']).exists() for info in frames)
        if finished:
            console.print(f'{finished} frames are finished already')
        errors = run_in_processes(make_label, frames, args.workers, console)
    quality = '' if None in errors else f', MAE {np.mean(errors):.3f}'
    console.print(f'{name}: {len(frames)} labels in {out}{quality}')


def direction(text: str) -> tuple[str, str]:
    """Parse ``SET=low`` or ``SET=high``: a set and its near depth values."""
    name, _, near = text.partition('=')
    if name not in SETS or near not in NEAR:
        raise argparse.ArgumentTypeError(f'{text!r} is not SET=low or SET=high, of {list(SETS)}')
    return name, near


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser('saliency', __doc__)
    add = parser.add_argument
    add('--sets', nargs='+', choices=SETS, default=['njud', 'nlpr'], help='default: njud nlpr')
    add('--split', choices=('train', 'test'), default='train', help='default: %(default)s')
    add('--data-root', default=data_place('rgbd_saliency'), help='default: %(default)s')
    add('--pseudo', default='pseudo', help='name of the folder of labels, default: %(default)s')
    add(
        '--near', nargs='+', type=direction, default=(), metavar='SET=low|high',
        help='which stored depth values are near in your copy of a set',
    )  # fmt: skip
    add('--expect', type=int, help='frames of each set (default: the official numbers)')
    add('--workers', type=int, default=min(8, os.cpu_count() or 1), help='processes')
    add('--overwrite', action='store_true', help='make finished labels again')
    args = parser.parse_args(argv)
    if args.workers < 1:
        parser.error(f'--workers {args.workers} is below 1')
    args.near = dict(args.near)
    return args


def run(args: argparse.Namespace, console: Console) -> None:
    init_default_scope('mmseg')
    tests = [(name, 'test') for name in SETS if is_there(name, args)]
    for name, split in dict.fromkeys([*((name, args.split) for name in args.sets), *tests]):
        check_direction(name, split, args, console)
    for name in args.sets:
        convert(name, args, console)


def main(argv: Sequence[str] | None = None) -> None:
    run(parse_args(argv), Console(highlight=False, soft_wrap=True))
