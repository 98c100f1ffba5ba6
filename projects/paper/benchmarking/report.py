"""Reports of measurements: settings, tables, and the figures as JSON."""

from __future__ import annotations

import platform
import subprocess
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import mmengine
import mmseg
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mmcen import __version__

from . import against
from .loading import OFFICIAL, LoadingWorkload
from .memory import METHOD
from .workload import OURS, SEED, SMALL_SHARE, Workload

ROOT = Path(__file__).resolve().parents[3]
MEBIBYTE = 2**20
LOADING = {
    'sample': 'samples, as worker processes make them',
    'input': 'input of the network: samples, batched and normalised on the CPU',
}


def setting(args: Namespace, work: Workload) -> dict:
    """Where and what: everything needed to run the same again."""
    return {
        **surroundings(args, work),
        'shape': list(work.shape),
        'threads': work.threads,
        'precision': work.precision,
        'channels_last': work.channels_last,
        'weights': f'random, seed {SEED}; {SMALL_SHARE:.0%} of the scaling factors of each '
        'exchanging norm below its threshold',
        'memory': METHOD[work.device],
    }


def surroundings(args: Namespace, work: Any) -> dict:
    """What models and data have in common: the command, the machine, the versions."""
    device = torch.cuda.get_device_name() if work.device == 'cuda' else processor()
    return {
        'config': args.config,
        'cfg_options': {k: str(v) for k, v in (args.cfg_options or {}).items()},
        'batch': work.batch,
        'runs': args.runs,
        'warmup': args.warmup,
        'clock': args.clock,
        'device': work.device,
        'device_name': device,
        'python': platform.python_version(),
        'torch': torch.__version__,
        'mmengine': mmengine.__version__,
        'mmseg': mmseg.__version__,
        'mmcen': __version__,
        'commit': commit(),
    }


def loading_setting(args: Namespace, work: LoadingWorkload) -> dict:
    """What loading was measured on."""
    frames = len(work.order(len(work.dataset())))
    return {**surroundings(args, work), 'frames': frames, 'opencv': cv2.__version__}


def against_setting(args: Namespace, sizes: dict, commit: str, device: str) -> dict:
    """Where and what, of this working tree against a commit."""
    names = ('steps', 'threads', 'precision', 'channels_last')
    return {
        **surroundings(args, Namespace(device=device, batch=sizes['batch'])),
        **{name: getattr(args, name) for name in names},
        'shapes': sizes['shapes'],
        'ori_size': list(args.ori_size),
        'against': commit,
        'memory': against.MEMORY[device],
    }


def processor() -> str:
    """Model name of the CPU."""
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    return next(names, platform.processor() or platform.machine())


def commit() -> str | None:
    """Commit of this clone, marked where files differ from it; None outside a clone."""
    describe = ['git', 'describe', '--always', '--dirty', '--abbrev=40', '--exclude=*']
    try:
        done = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def print_setting(console: Console, facts: dict) -> None:
    """One paragraph above the tables."""
    height, width = facts['shape']
    lines = (
        f'{facts["config"]}, batch {facts["batch"]}, {height}x{width}, {facts["precision"]}'
        + (', channels_last' if facts['channels_last'] else ''),
        f'{facts["device"]} ({facts["device_name"]}), {facts["threads"]} threads, '
        f'torch {facts["torch"]}, mmseg {facts["mmseg"]}, commit {facts["commit"]}',
        f'{facts["runs"]} runs in turn after {facts["warmup"]} to warm up, {facts["clock"]} time',
        f'weights: {facts["weights"]}',
        f'memory: {facts["memory"]}',
    )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)


def print_comparison(console: Console, comparison: dict) -> None:
    """Times and memory of all variants, and ours / other."""
    times = make_table('times', ('', 'median s', 'p95 s', 'ours/other', 'quartiles'))
    memory = make_table('peak memory', ('', 'tensors MiB', 'ours/other', 'process MiB'))
    for task, rows in comparison['tasks'].items():
        for name, row in rows.items():
            ratio, peak = row.get('ratio'), row['memory']
            label = f'{task.replace("_", " ")}, {name}'
            times.add_row(label, *cells(row), *ratio_cells(ratio), end_section=last(name, rows))
            memory.add_row(
                label,
                mebibytes(peak['tensors']),
                '' if name == OURS else f'{row["memory_ratio"]:.3f}',
                mebibytes(peak['process']),
                end_section=last(name, rows),
            )
    console.print(times, memory)
    if 'difference' in comparison:
        console.print(
            f'outputs of ours and list_of_streams differ by {comparison["difference"]:.2g} of the '
            'largest'
        )


def print_deployed(console: Console, result: dict) -> None:
    """Inference of a trained model, in four ways."""
    columns = ('', 'median s', 'p95 s', '/ list of streams', 'quartiles', '/ folded', 'quartiles')
    table = make_table('inference, ensemble and streams', columns)
    for name, row in result['rows'].items():
        ratios = (*ratio_cells(row['to_list_of_streams']), *ratio_cells(row['to_folded']))
        table.add_row(name, *cells(row), *ratios)
    console.print(table)
    folded, apart = result['folded'], result['apart']
    console.print(
        f'{result["exchanged"]:.0%} of the channels are exchanged; multiply-adds: folded '
        f'{folded / 1e9:.1f} G, apart {apart / 1e9:.1f} G ({apart / folded - 1:+.1%})'
    )


def print_edge(console: Console, result: dict) -> None:
    """From decoded frames to label maps."""
    others = [key for key in next(iter(result['rows'].values())) if key.startswith('to_')]
    columns = ['', 'median s', 'p95 s']
    for other in others:
        columns += [f'times as fast as {other[3:]}', 'quartiles']
    table = make_table('from decoded frame to label map', columns)
    for name, row in result['rows'].items():
        table.add_row(name, *cells(row), *(c for other in others for c in ratio_cells(row[other])))
    console.print(table)
    sizes = ', '.join(f'{name} {mebibytes(n)} MiB' for name, n in result['bytes'].items())
    console.print(f'weights: {result["weights"]}; files: {sizes}')


def print_counts(console: Console, kind: str, rows: dict) -> None:
    """Cost of each added stream, or task, in a train step."""
    columns = ('', 'median s', 'p95 s', 'added s', 'quartiles', 'tensors MiB', 'added MiB')
    table = make_table(f'train step by number of {kind}', columns)
    for name, row in rows.items():
        added = row.get('added')
        table.add_row(
            name,
            *cells(row),
            *ratio_cells(added),
            mebibytes(row['memory']['tensors']),
            mebibytes(row['added_memory']) if added else '',
        )
    console.print(table)


def print_cycle(console: Console, flows: int, result: dict) -> None:
    """A cycle against as many steps of one flow."""
    median, quartiles = ratio_cells(result['ratio'])
    console.print(
        f'train step of a cycle of {flows} flows / {flows} x one flow: {median} ({quartiles})'
    )


def print_against(console: Console, facts: dict, result: dict) -> None:
    """Times and memory of this working tree and of another commit, and ours / theirs."""
    step, frame = ('x'.join(map(str, facts['shapes'][task])) for task in against.TASKS)
    for line in (
        f'{facts["config"]}, {facts["precision"]}'
        + (', channels_last' if facts['channels_last'] else ''),
        f'train step: batch {facts["batch"]} of {step}; test frame: {frame}, labels and metrics at '
        + 'x'.join(map(str, facts['ori_size'])),
        f'{facts["device"]} ({facts["device_name"]}), {facts["threads"]} threads, '
        f'torch {facts["torch"]}, mmseg {facts["mmseg"]}',
        f'ours: {facts["commit"]}; theirs: {facts["against"]}',
        f'{facts["runs"]} processes of each in turn, {facts["steps"]} steps in each after '
        f'{facts["warmup"]} to warm up, {facts["clock"]} time',
        f'memory: {facts["memory"]}',
    ):
        console.print(line, soft_wrap=True, highlight=False)
    times = make_table('times', ('', 'median s', 'ours/theirs', 'quartiles'))
    memory = make_table('peak memory', ('', 'MiB', 'ours/theirs', 'quartiles'))
    for task, rows in result.items():
        for name in (against.OURS, against.THEIRS):
            row, end = rows[name], name == against.THEIRS
            label = f'{task.replace("_", " ")}, {name}'
            ratio, memory_ratio = (rows[key] if end else None for key in ('ratio', 'memory_ratio'))
            times.add_row(label, f'{row["median"]:.3f}', *ratio_cells(ratio), end_section=end)
            memory.add_row(
                label, mebibytes(row['memory']), *ratio_cells(memory_ratio), end_section=end
            )
    console.print(times, memory)


def print_loading(console: Console, result: dict) -> None:
    """Samples per second and core of a training pipeline, and where its time goes."""
    facts = result['setting']
    for line in (
        f'{facts["config"]}, {facts["frames"]} frames, {facts["runs"]} runs of {facts["batch"]} in '
        f'turn after {facts["warmup"]} to warm up, {facts["clock"]} time, one thread',
        f'{facts["device_name"]}, OpenCV {facts["opencv"]}, torch {facts["torch"]}, commit '
        f'{facts["commit"]}',
    ):
        console.print(line, soft_wrap=True, highlight=False)
    for task, rows in result['loading'].items():
        base = OFFICIAL if OFFICIAL in rows else OURS
        columns = ('', 'ms a sample', 'samples/s', f'x as fast as {base}', 'quartiles')
        table = make_table(LOADING[task], columns)
        for name, row in rows.items():
            figures = f'{1000 * row["median"]:.2f}', f'{row["samples_per_second"]:.0f}'
            table.add_row(name, *figures, *ratio_cells(row['speedup']))
        console.print(table)
    total = sum(result['transforms'].values())
    table = make_table('where the time of ours goes', ('', 'ms a sample', 'share'))
    for name, taken in result['transforms'].items():
        table.add_row(name, f'{1000 * taken:.2f}', f'{taken / total:.0%}')
    console.print(table)


def make_table(title: str, columns: Sequence[str]) -> Table:
    """First column left, figures right, narrow enough for a terminal of 80 columns."""
    table = Table(title=title, title_justify='left', box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for i, column in enumerate(columns):
        table.add_column(column, justify='right' if i else 'left', no_wrap=True)
    return table


def last(name: str, rows: dict) -> bool:
    return name == list(rows)[-1]


def cells(row: dict) -> tuple[str, str]:
    return f'{row["median"]:.3f}', f'{row["p95"]:.3f}'


def ratio_cells(values: dict[str, float] | None) -> tuple[str, str]:
    if values is None:
        return '', ''
    return f'{values["median"]:.3f}', f'{values["q1"]:.3f} .. {values["q3"]:.3f}'


def mebibytes(size: int | None) -> str:
    return '-' if size is None else f'{size / MEBIBYTE:.0f}'
