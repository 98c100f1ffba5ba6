#!/usr/bin/env python
"""Time and memory of a model: ``python projects/paper/benchmark.py CONFIG``.

Measures a train step and an inference of the config's model (segmentation or translation) against
the same model with exchange off and against lists of streams, the way the official code is written.
Runs alternate within one process, so that ratios hold on a machine that others use. Data and
weights are random. With ``--data`` the config's training pipeline is measured instead, on its data.
With ``--against COMMIT`` this working tree is measured against another commit of the repository.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

# A clone runs without being installed, and runs its own package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from mmengine.config import Config
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmcen.engine.options import Options
from mmcen.files import write
from projects.paper.benchmarking import against, deployed, edge, loading, measure, memory, report
from projects.paper.benchmarking.translation import TranslationWorkload
from projects.paper.benchmarking.workload import OURS, TASKS, Workload, quiet


def parse_args() -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser(description='Time and memory of a model.')
    add_measurements(parser.add_argument)
    add_settings(parser.add_argument)
    args = parser.parse_args()
    check_against(args, parser)
    args.runs = args.runs or (5 if args.against else 10)
    return args, parser


def add_measurements(add: Callable) -> None:
    """Add the options that say what is measured."""
    # fmt: off
    add('config', help='config file, for example one of configs/cen/')
    add('--cfg-options', nargs='+', action=Options, metavar='KEY=VALUE',
        help='override entries of the config, for example model.backbone.depth=18')
    add('--data', action='store_true',
        help='measure loading: samples per second and core of the training pipeline, by transform')
    add('--against', metavar='COMMIT',
        help='measure a train step, and a test frame with its metrics, of this working tree '
        'against another commit, in processes in turn; each side has its own package and config')
    add('--shape', nargs=2, type=positive, metavar=('H', 'W'),
        help="height and width in pixels, default 256 256; with --against the config's")
    add('--ori-size', nargs=2, type=positive, metavar=('H', 'W'),
        help='--against: original size of the test frame, to which predictions are resized, '
        'default 480 640')
    add('--batch', type=positive,
        help="frames in a step, default 2; with --against the config's; with --data frames in a "
        "run, default the config's")
    add('--compare', nargs='*', metavar='RIVAL',
        help='what to measure against: exchange_off, list_of_streams and, for translation, '
        'list_detached; with --data cached (in memory) and, where it does the same, official (the '
        "official code's transforms); default all; without a name, nothing is compared. On "
        'request: fp32 (the same model, for --precision bf16); segmentation: compiled '
        '(torch.compile of backbone and head; minutes to start)')
    add('--streams', nargs='+', type=positive, metavar='N',
        help='measure a train step with these numbers of modalities, for example 1 2 3 4')
    add('--tasks', nargs='+', type=positive, metavar='N',
        help='translation: measure a train step with these numbers of tasks from one input')
    add('--cycle', type=positive, metavar='N',
        help='translation: measure a train step of N flows at once against N times one flow')
    add('--deploy', action='store_true',
        help='segmentation: measure inference only, of the model folded, unrolled and in ONNX '
        'Runtime, against lists of streams; 30 %% of all channels are exchanged')
    add('--edge', nargs='*', metavar='FILE',
        help='segmentation: measure from decoded frames of --shape to label maps, of files that '
        '`mmcen export --labels` wrote in float and with --int8, against the model in PyTorch; '
        'without files they are made of random weights')
    # fmt: on


def add_settings(add: Callable) -> None:
    """Add the options that say how it is measured."""
    # fmt: off
    add('--runs', type=positive,
        help='measured rounds, default 10; with --against processes of each side, default 5')
    add('--warmup', type=int, default=2,
        help='rounds before them, with --against steps of each process, default %(default)s')
    add('--steps', type=positive,
        help='--against: measured steps of each process, of which the median counts, default 5')
    add('--threads', type=positive, default=torch.get_num_threads(),
        help='threads of PyTorch on the CPU, here by default %(default)s')
    add('--device', choices=('auto', 'cpu', 'cuda'), default='auto', help='default %(default)s')
    add('--precision', choices=('fp32', 'bf16'), default='fp32',
        help='bf16 is autocast to bfloat16; default %(default)s')
    add('--channels-last', action='store_true', help='weights and features in that memory format')
    add('--clock', choices=('wall', 'cpu'), default='wall',
        help='cpu: time of this process on all cores, for a machine that others use, best with '
        '--threads 1; default %(default)s')
    add('--out', type=Path, metavar='FILE', help='write all figures to this JSON file')
    # fmt: on


def check_against(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End the program if options of another report are given."""
    if args.edge is not None and len(args.edge) not in (0, 2):
        parser.error(f'--edge takes no file, or those in float and int8, not {len(args.edge)}')
    modes = ('data', 'compare', 'streams', 'tasks', 'cycle', 'deploy', 'edge')
    for name in modes if args.against else ('ori_size', 'steps'):
        if getattr(args, name) not in (None, False):
            option = name.replace('_', '-')
            fix = f'leave --{option} out' if args.against else 'give --against as well'
            parser.error(f'--{option} {"is not" if args.against else "is"} for --against: {fix}')
    args.ori_size = args.ori_size or against.ORI_SIZE
    args.steps = args.steps or 5


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{value} is not positive')
    return value


def read_config(args: argparse.Namespace, parser: argparse.ArgumentParser) -> Config:
    """Read the config with its overrides; end the program if a file or folder is missing."""
    if not Path(args.config).is_file():
        parser.error(f'config {args.config} does not exist: see configs/cen/')
    if args.out is not None and not args.out.absolute().parent.is_dir():
        parser.error(f'--out: the folder {args.out.parent} does not exist, make it first')
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    return cfg


def find_device(args: argparse.Namespace, parser: argparse.ArgumentParser) -> str:
    """Return 'cpu' or 'cuda'; end the program if it cannot be measured."""
    device = args.device
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    elif device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: PyTorch finds no GPU here, use --device cpu')
    if device == 'cuda' and args.clock == 'cpu':
        parser.error('--clock cpu does not measure a GPU: use --clock wall')
    return device


def make_workload(args: argparse.Namespace, parser: argparse.ArgumentParser) -> Workload:
    """Build the workload of the command line; end the program if it is not possible."""
    cfg = read_config(args, parser)
    args.batch, args.shape = args.batch or 2, args.shape or (256, 256)
    device = find_device(args, parser)
    torch.set_num_threads(args.threads)
    translates = cfg.get('model', {}).get('type') == 'CENTranslator'
    kind = TranslationWorkload if translates else Workload
    if args.compare is None:
        infers = args.deploy or args.edge is not None
        args.compare = [] if infers else list(kind.rivals)
    known = (*kind.rivals, *kind.on_request)
    unknown = [name for name in args.compare if name not in known]
    if unknown:
        parser.error(f'--compare: {unknown[0]} is none of {", ".join(known)}')
    if not translates and (args.tasks or args.cycle):
        parser.error('--tasks and --cycle are for the config of a CENTranslator')
    for name in ('deploy', 'edge'):
        if getattr(args, name) not in (None, False) and (translates or device != 'cpu'):
            parser.error(f'--{name} is for a CENEncoderDecoder on the CPU: add --device cpu')
    named = args.compare or args.deploy or args.streams or args.tasks or args.cycle
    if not named and args.edge is None:
        parser.error('nothing to measure: name a rival after --compare, or give --streams')
    work = kind(
        cfg, tuple(args.shape), args.batch, device, args.precision, args.channels_last, args.threads
    )
    try:
        work.check([*args.compare, *(['list_of_streams'] if args.deploy else [])])
    except ValueError as error:
        parser.error(str(error))
    return work


def compare(work: Workload, args: argparse.Namespace, progress: Progress) -> dict:
    """Measure times and memory of our model and the rivals."""
    names = [OURS, *args.compare]
    peaks = measure_memory(work, names, progress)
    variants = {name: work.build(name) for name in names}
    result: dict = {'tasks': {}}
    if 'list_of_streams' in names:  # before a train step changes weights
        result['difference'] = measure.difference(variants[OURS], variants['list_of_streams'])
    for task in TASKS:
        times = measure_times(variants, task, args, progress)
        rows = result['tasks'][task] = {}
        for name in names:
            row = rows[name] = {**measure.summary(times[name]), 'memory': peaks[name][task]}
            if name != OURS:
                row['ratio'] = measure.ratios(times[OURS], times[name])
                row['memory_ratio'] = rows[OURS]['memory']['tensors'] / row['memory']['tensors']
    return result


def compare_counts(work: Workload, args: argparse.Namespace, progress: Progress, kind: str) -> dict:
    """Measure a train step by number of streams or tasks, and the differences."""
    counts = sorted(set(getattr(args, kind)))
    measured = measure_grids(work, args, progress, [f'{kind}={n}' for n in counts])
    rows = {str(n): row for n, row in zip(counts, measured.values(), strict=True)}
    for n in counts:
        if n - 1 in counts:
            rows[str(n)].update(measure.added(rows[str(n)], rows[str(n - 1)]))
    return rows


def compare_cycle(work: Workload, args: argparse.Namespace, progress: Progress) -> dict:
    """Measure a train step of N flows on one grid, and of one flow."""
    names = [f'cycle={args.cycle}', f'streams={args.cycle - 1}']
    rows = measure_grids(work, args, progress, names)
    times = [rows[name]['times'] for name in names]
    ratio = measure.ratios(times[0], [args.cycle * seconds for seconds in times[1]])
    return {**rows, 'ratio': ratio}


def compare_deployed(work: Workload, args: argparse.Namespace, progress: Progress) -> dict:
    """Measure inference against lists of streams and the folded model."""
    variants, facts = deployed.build(work)
    times = measure_times(variants, 'inference', args, progress)
    rows = {
        name: {
            **measure.summary(seconds),
            **{
                f'to_{other}': measure.ratios(seconds, times[other])
                for other in ('list_of_streams', 'folded')
            },
        }
        for name, seconds in times.items()
    }
    return {**facts, 'rows': rows}


def compare_edge(work: Workload, args: argparse.Namespace, progress: Progress) -> dict:
    """Measure from decoded frames to label maps, against the float file and PyTorch."""
    with tempfile.TemporaryDirectory() as folder:
        variants, facts = edge.build(work, args.edge, Path(folder))
    times = measure_times(variants, 'inference', args, progress)
    others = ('float', next(reversed(times)))
    rows = {
        name: {
            **measure.summary(seconds),
            **{f'to_{other}': measure.ratios(times[other], seconds) for other in others},
        }
        for name, seconds in times.items()
    }
    return {**facts, 'rows': rows}


def measure_grids(
    work: Workload, args: argparse.Namespace, progress: Progress, names: list[str]
) -> dict[str, dict]:
    """Measure times and memory of a train step, by name of a grid."""
    peaks = measure_memory(work, names, progress)
    variants = {name: work.build(name) for name in names}
    times = measure_times(variants, 'train_step', args, progress)
    return {
        name: {**measure.summary(times[name]), 'memory': peaks[name]['train_step']}
        for name in names
    }


def measure_memory(work: Workload, names: list[str], progress: Progress) -> dict:
    task = progress.add_task('memory', total=len(names))
    result = {}
    for name, figures in memory.peak_memory(work, names):
        result[name] = figures
        progress.advance(task)
    return result


def measure_times(variants: dict, task: str, args: argparse.Namespace, progress: Progress) -> dict:
    bar = progress.add_task(task.replace('_', ' '), total=(args.warmup + args.runs) * len(variants))
    seconds = measure.stopwatch(next(iter(variants.values())).work.device, args.clock)
    return measure.time_in_turn(
        variants, task, args.runs, args.warmup, seconds, lambda: progress.advance(bar)
    )


def main() -> None:
    args, parser = parse_args()
    quiet()
    if args.against:
        measure_against(args, parser)
    elif args.data:
        measure_data(args, parser)
    else:
        measure_model(args, parser)


def measure_against(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Measure this working tree against a commit, and print the result."""
    cfg = read_config(args, parser)
    device = find_device(args, parser)
    try:
        commit = against.find_commit(args.against)
        sizes = against.setting(cfg, args)
        with progress_bars() as progress:
            total = 2 * args.runs * len(against.TASKS)
            bar = progress.add_task('processes', total=total)
            result = against.compare(args, sizes, commit, device, lambda: progress.advance(bar))
    except (ValueError, RuntimeError) as error:
        parser.error(str(error))
    facts = report.against_setting(args, sizes, commit, device)
    report.print_against(Console(), facts, result)
    save(args, {'setting': facts, 'against': result})


def measure_data(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Measure loading, and print the result."""
    cfg = read_config(args, parser)
    try:
        work, names = loading.plan(cfg, args.batch, args.runs + args.warmup, args.compare)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    result: dict = {'setting': report.loading_setting(args, work), 'loading': {}}
    with progress_bars() as progress:
        variants = {name: work.build(name) for name in names}
        for task in work.tasks:
            times = measure_times(variants, task, args, progress)
            result['loading'][task] = loading.figures(times, work.batch)
        bar = progress.add_task('transforms', total=args.runs)
        seconds = measure.stopwatch(work.device, args.clock)
        result['transforms'] = loading.where_time_goes(
            variants[OURS], args.runs, seconds, lambda: progress.advance(bar)
        )
    report.print_loading(Console(), result)
    save(args, result)


def measure_model(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Measure a model, and print the result."""
    work = make_workload(args, parser)
    result = {'setting': report.setting(args, work)}
    with progress_bars() as progress:
        if args.compare:
            result['comparison'] = compare(work, args, progress)
        if args.deploy:
            result['deployed'] = compare_deployed(work, args, progress)
        if args.edge is not None:
            result['edge'] = compare_edge(work, args, progress)
        for kind in ('streams', 'tasks'):
            if getattr(args, kind):
                result[kind] = compare_counts(work, args, progress, kind)
        if args.cycle:
            result['cycle'] = compare_cycle(work, args, progress)
    console = Console()
    report.print_setting(console, result['setting'])
    if args.compare:
        report.print_comparison(console, result['comparison'])
    if args.deploy:
        report.print_deployed(console, result['deployed'])
    if args.edge is not None:
        report.print_edge(console, result['edge'])
    for kind in ('streams', 'tasks'):
        if kind in result:
            report.print_counts(console, kind, result[kind])
    if args.cycle:
        report.print_cycle(console, args.cycle, result['cycle'])
    save(args, result)


def progress_bars() -> Progress:
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))


def save(args: argparse.Namespace, result: dict) -> None:
    if args.out is not None:
        write(args.out, json.dumps(result, indent=2) + '\n')
        Console().print(f'all figures: {args.out}')


if __name__ == '__main__':
    main()
