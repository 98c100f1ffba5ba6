"""Derive image domains of any RGB-D set, in the folders that TaskonomyDataset reads.

Writes, for frame p = 1, 2, ... in the order of the file names of all splits,

    OUT/{domain}/point_{p}_view_0_domain_{domain}.png
    OUT/splits/{split}.txt    names of frames, point_{p}_view_0
    OUT/source.json           source, size and camera

rgb, depth and classes are those of the set. Normals, curvature, occlusion edges and shading are
computed from depth, texture edges from colour. It can be interrupted at any time; the same command
continues where it stopped.

Examples:
    mmcen convert-data derive-domains --data-root data/nyuv2 --size 256 256
    mmcen convert-data derive-domains --limit 8 --out /tmp/few --sheet few.png
    mmcen convert-data derive-domains --config my_rgbd.py --out data/my_domains \\
        --intrinsics 525 525 319.5 239.5 --intrinsics-size 640 480
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from rich.console import Console

from ..datasets import MultiModalSegDataset, domains
from ..datasets.encodings import CLASSES, from_file, paint, to_file, to_image
from ..datasets.nyuv2 import colour_map
from ..datasets.transforms.reading import read_array
from ..files import write
from .common import command_parser, make_folders
from .processes import run_in_processes

DERIVED = (
    'rgb', 'depth_zbuffer', 'depth_euclidean', 'normal', 'reshading', 'edge_texture',
    'edge_occlusion', 'principal_curvature', CLASSES,
)  # fmt: skip
NYU_CAMERA = (518.8579, 519.4696, 325.5824, 253.7362)  # of its toolbox: colour, 640x480
PIPELINE = [{'type': 'LoadModalities'}, {'type': 'LoadLabel', 'optional': True}]
EDGE = 0.05  # weaker depth edges are noise: a step of NYUv2's 8 bits is 5 % at 0.8 m
SHEET_ROWS = 6


@dataclass(frozen=True)
class SourceFrame:
    """One frame of the source: its number in OUT, its split, and its index in the split."""

    number: int
    split: str
    index: int

    @property
    def name(self) -> str:
        return f'point_{self.number}_view_0'


@dataclass(frozen=True)
class DeriveJob:
    """Facts that deriving a frame needs; every worker gets them."""

    sources: dict[str, dict]  # config of the data set by split
    out: Path
    domains: tuple[str, ...]
    size: tuple[int, int] | None  # (H, W), None = as stored
    camera: tuple[float, ...]  # fx, fy, cx, cy
    camera_size: tuple[int, int]  # (W, H) that they are for

    def path(self, domain: str, frame: SourceFrame) -> Path:
        return self.out / domain / f'{frame.name}_domain_{domain}.png'

    def finished(self, frame: SourceFrame) -> bool:
        """Whether all files of a frame exist; they are written atomically."""
        return all(self.path(domain, frame).exists() for domain in self.domains)


def resize(picture: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    return cv2.resize(picture, size[::-1], interpolation=interpolation)


def derive(job: DeriveJob, sample: dict, step: float) -> dict[str, np.ndarray]:
    """All wanted domains of a sample in physical units, (H, W, C) each.

    Args:
        job: Facts with domains, size and camera.
        sample: Sample with rgb uint8, depth in metres, and optionally ``gt_seg_map``.
        step: Step of the depth's quantisation, in metres.
    """
    rgb, depth = sample['modalities']['rgb'], sample['modalities']['depth'][..., 0]
    size = job.size or depth.shape
    shrinks = size[0] * size[1] < depth.size
    rgb = resize(rgb, size, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    depth = resize(depth, size, cv2.INTER_NEAREST_EXACT)  # a mean over an edge is not a depth
    camera = domains.camera_matrix(job.camera, job.camera_size, *size)
    # Stored depth has steps, 4 cm in NYUv2 with 8 bits, so that slanted walls are flat strips of
    # 30 to 80 of 640 pixels. Their derivatives would be stripes.
    smooth = domains.smooth_depth(depth, step)
    normals = domains.normals_from_depth(smooth, camera, radius=2)

    def curvature() -> np.ndarray:  # a second derivative needs a larger window
        wide = domains.normals_from_depth(smooth, camera, radius=4)
        return domains.principal_curvature(wide, domains.backproject(smooth, camera))

    makers = {
        'rgb': lambda: rgb,
        'depth_zbuffer': lambda: depth,
        'depth_euclidean': lambda: domains.euclidean_depth(depth, camera),
        'normal': lambda: normals,
        'reshading': lambda: domains.reshading(normals),
        'edge_texture': lambda: domains.texture_edges(rgb),
        'edge_occlusion': lambda: domains.occlusion_edges(smooth, EDGE),
        'principal_curvature': curvature,
        CLASSES: lambda: resize(sample['gt_seg_map'], size, cv2.INTER_NEAREST_EXACT),
    }
    made = {name: makers[name]() for name in job.domains}
    return {name: a if a.ndim == 3 else a[..., None] for name, a in made.items()}


def depth_step(info: dict) -> float:
    """Return metres of one stored unit of a frame's depth; 0 for floating point."""
    dtype = read_array(info['modality_paths']['depth']).dtype
    return info['modality_info']['depth'].metres(dtype.name) if dtype.kind in 'ui' else 0.0


class Worker:
    """State of a process between frames: the data sets of the splits."""

    def __init__(self, job: DeriveJob) -> None:
        self.job = job
        self.datasets = open_sources(job.sources)

    def __call__(self, frame: SourceFrame) -> None:
        """Derive one frame and write its files."""
        dataset = self.datasets[frame.split]
        step = depth_step(dataset.get_data_info(frame.index))
        for domain, values in derive(self.job, dataset[frame.index], step).items():
            stored = to_file(domain, values)
            stored = stored[..., ::-1] if stored.ndim == 3 else stored
            write(self.job.path(domain, frame), cv2.imencode('.png', stored)[1].tobytes())


def open_sources(sources: dict[str, dict]) -> dict[str, MultiModalSegDataset]:
    """Build the data sets, and reject those from which domains cannot be derived."""
    init_default_scope('mmseg')
    datasets = {}
    for split, cfg in sources.items():
        # mmseg needs classes in test mode, which a set without labels does not have
        dataset = DATASETS.build({**cfg, 'pipeline': PIPELINE, 'test_mode': False})
        if not isinstance(dataset, MultiModalSegDataset):
            raise ValueError(
                f'the {split} data set is a {type(dataset).__name__}: a MultiModalSegDataset with '
                'rgb and depth is needed, declare one (see its docstring)'
            )
        kinds = {name: spec.kind for name, spec in dataset.modality_info.items()}
        if kinds.get('rgb') != 'colour' or kinds.get('depth') != 'depth':
            raise ValueError(
                f'the {split} data set has modalities {kinds}: it needs rgb of kind colour and '
                'depth of kind depth, name them so'
            )
        datasets[split] = dataset
    return datasets


_worker: Worker | None = None  # of this process, shared by initializer and task


def start_worker(job: DeriveJob) -> None:
    global _worker
    _worker = Worker(job)


def work(frame: SourceFrame) -> None:
    if _worker is None:
        raise RuntimeError('work runs in processes that start_worker has prepared')
    _worker(frame)


def list_frames(datasets: dict[str, MultiModalSegDataset]) -> list[SourceFrame]:
    """Return all frames, numbered by their file names, independently of options."""
    found = [
        (dataset.get_data_info(i)['img_path'], split, i)
        for split, dataset in datasets.items()
        for i in range(len(dataset))
    ]
    return [SourceFrame(number, split, i) for number, (_, split, i) in enumerate(sorted(found), 1)]


def first_of_each(frames: Sequence[SourceFrame], limit: int | None) -> list[SourceFrame]:
    """Return the first frames of each split, in its order."""
    return [frame for frame in frames if limit is None or frame.index < limit]


def prepare_out(job: DeriveJob) -> None:
    """Make the folders; reject folders of another source, size or camera."""
    make_folders(job.out, (*job.domains, 'splits'))
    note = job.out / 'source.json'
    camera = {'camera': job.camera, 'camera_size': job.camera_size}
    now = json.dumps({'sources': job.sources, 'size': job.size, **camera}, default=str)
    if note.exists() and note.read_text() != now:
        raise ValueError(
            f'{job.out} was made by other settings ({note.read_text()}, now {now}): choose '
            'another --out, or remove it'
        )
    write(note, now.encode())


def write_sheet(job: DeriveJob, frames: Sequence[SourceFrame], path: Path) -> None:
    """Draw some frames in all domains, as stored."""
    from ..visualization.sheet import draw_sheet  # matplotlib is only needed here

    chosen = [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, SHEET_ROWS).astype(int))]
    palette = np.array(colour_map(256)[1:])
    rows = []
    for frame in chosen:
        row = {}
        for domain in job.domains:
            values = from_file(domain, read_array(str(job.path(domain, frame))))
            image = paint(values, palette) if domain == CLASSES else to_image(domain, values)
            row[domain] = image.astype(np.uint8)
        rows.append(row)
    draw_sheet(rows, path)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser('derive-domains', __doc__)
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--data-root', help='folder of NYUv2 (default: that of NYUv2Dataset)')
    source.add_argument('--config', help='another set: config with train, val and test dataloaders')
    parser.add_argument('--out', type=Path, help='default: data/nyuv2_domains')
    parser.add_argument(
        '--domains',
        nargs='+',
        choices=DERIVED,
        metavar='DOMAIN',
        help=f'some of {", ".join(DERIVED)}',
    )
    parser.add_argument('--size', nargs=2, type=int, metavar=('H', 'W'), help='default: as stored')
    parser.add_argument(
        '--intrinsics', nargs=4, type=float, default=NYU_CAMERA, metavar=('FX', 'FY', 'CX', 'CY'),
        help="intrinsics of the camera in pixels; default: NYUv2's",
    )  # fmt: skip
    parser.add_argument(
        '--intrinsics-size', nargs=2, type=int, default=(640, 480), metavar=('W', 'H'),
        help='size for which they hold, default: %(default)s; they are scaled to the frames',
    )  # fmt: skip
    parser.add_argument('--limit', type=int, help='only the first frames of each split')
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1, help='processes')
    parser.add_argument('--sheet', type=Path, help='PNG file: also draw some frames in all domains')
    args = parser.parse_args(argv)
    for name in ('workers', 'limit'):
        if (value := getattr(args, name)) is not None and value < 1:
            parser.error(f'--{name} {value} is below 1')
    if min(*(args.size or (8, 8)), *args.intrinsics_size) < 8:
        parser.error('--size and --intrinsics-size are at least 8 each way')
    if args.config and not args.out:
        parser.error('--config needs --out: give the folder of the domains')
    return args


def read_sources(args: argparse.Namespace) -> dict[str, dict]:
    """Return the config of the data set of each split."""
    if not args.config:
        where = {'type': 'NYUv2Dataset', 'data_root': args.data_root}
        return {split: {**where, 'split': split} for split in ('train', 'test')}
    cfg = Config.fromfile(args.config)
    sources: dict[str, dict] = {}
    for split in ('train', 'val', 'test'):
        dataset = cfg.get(f'{split}_dataloader', {}).get('dataset')
        if dataset:
            dataset = {k: v for k, v in dataset.to_dict().items() if k != 'pipeline'}
            if dataset not in sources.values():  # test is often val
                sources[split] = dataset
    if not sources:
        raise ValueError(f'{args.config} has no train_dataloader with a dataset: add one')
    return sources


def run(args: argparse.Namespace, console: Console) -> None:
    sources = read_sources(args)
    datasets = open_sources(sources)
    labelled = all('seg_map_path' in dataset.data_prefix for dataset in datasets.values())
    wanted = args.domains or [name for name in DERIVED if labelled or name != CLASSES]
    if CLASSES in wanted and not labelled:
        raise ValueError(f'{CLASSES} is wanted, but the set has no labels: leave it out')
    job = DeriveJob(
        sources,
        args.out or Path('data/nyuv2_domains'),
        tuple(dict.fromkeys(wanted)),
        tuple(args.size) if args.size else None,
        tuple(args.intrinsics),
        tuple(args.intrinsics_size),
    )
    frames = first_of_each(list_frames(datasets), args.limit)
    prepare_out(job)
    left = [frame for frame in frames if not job.finished(frame)]
    if len(left) < len(frames):
        console.print(f'{len(frames) - len(left)} frames are finished already')
    run_in_processes(work, left, args.workers, console, start_worker, (job,))
    for split in sources:  # last: they mark the set as complete
        lines = [f'{frame.name}\n' for frame in frames if frame.split == split]
        write(job.out / 'splits' / f'{split}.txt', ''.join(lines).encode())
    console.print(f'{len(frames)} frames of {len(job.domains)} domains in {job.out}')
    if args.sheet:
        write_sheet(job, frames, args.sheet)
        console.print(f'sheet: {args.sheet}')


def stop(*_: object) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    signal.signal(signal.SIGTERM, stop)
    run(args, Console(highlight=False, soft_wrap=True))
