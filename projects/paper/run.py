#!/usr/bin/env python
"""The paper's tables, and two of our own: list, show, train rows, write the config of a row.

    python projects/paper/run.py list
    python projects/paper/run.py show table2
    python projects/paper/run.py run table2 --rows cen concat-late --dataset synthetic --seeds 0 1 2
    python projects/paper/run.py dump table6 rgb-depth-normal+cycle

``run`` trains each row with the ordinary runner, in a separate folder below --work-dir, and
continues interrupted runs. A row that fails does not stop the others. Tables contain published
figures and completed runs only, including those of earlier commands with the same options.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

# A clone runs without being installed, and runs its own package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rich.console import Console
from rich.table import Column
from rich.table import Table as Grid

from mmcen.cli.common import exit_status
from mmcen.engine.options import Options
from mmcen.files import write
from projects.paper import report, running
from projects.paper.duration import duration
from projects.paper.experiments import DATASETS, load
from projects.paper.plan import RunPlan, Settings
from projects.paper.rows import BUDGET, TABLES, Row, Table

TABLE = f'table1 to table14, figure9, or our own {BUDGET} and {BUDGET}-translation'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='command', required=True)
    commands.add_parser('list', help='all tables and how many of their rows can be run')
    show = commands.add_parser('show', help='a table: published figures, and what was run of it')
    run = commands.add_parser('run', help='train rows of a table and write it')
    for command in (show, run):
        add = command.add_argument
        add('table', help=TABLE)
        add('--rows', nargs='+', metavar='ROW', help='names of rows; default all that can be run')
        add('--dataset', choices=DATASETS, default='synthetic', help='default: %(default)s')
        add('--epochs', type=int, help="default: the data set's own schedule")
        add('--seeds', nargs='+', type=int, default=[0], help='default: 0')
        add('--extractor', metavar='FILE', help='Inception weights, for FID and KID')
        add('--cfg-options', nargs='+', action=Options, default={}, metavar='KEY=VALUE',
            help='settings of all rows to change')  # fmt: skip
        add('--metrics', nargs='+', default=[], metavar='NAME',
            help='more figures to show, such as mAcc rgb/mAcc')  # fmt: skip
        add('--against', default='', metavar='ROW',
            help='also subtract this row, seed by seed: mean and standard error')  # fmt: skip
        add('--work-dir', type=Path, default=Path('work_dirs/paper'), help='default: %(default)s')
    dump = commands.add_parser('dump', help='write the full config of a row, to edit it')
    dump.add_argument('table', help=TABLE)
    dump.add_argument('rows', nargs='+', metavar='ROW', help='names of rows')
    dump.add_argument('--dataset', choices=DATASETS, help="default: the paper's")
    dump.add_argument('--extractor', metavar='FILE', help='Inception weights, for FID and KID')
    dump.add_argument('--out', type=Path, default=Path(), help='folder, default: this one')
    run.add_argument('--without', nargs='+', default=[], metavar='PART',
        help='parts of rows not to train: prefixes of their columns, such as common')  # fmt: skip
    run.add_argument('--jobs', type=int, default=1, help='trainings at a time; default: 1')
    run.add_argument('--out', type=Path, help='folder of the tables; default: the work dir')
    args = parser.parse_args()
    if args.command != 'list':
        if args.table not in TABLES:
            parser.error(f'no table {args.table}: there are {", ".join(TABLES)}')
        unknown = [name for name in args.rows or () if name not in TABLES[args.table].rows]
        if getattr(args, 'against', '') not in ('', *TABLES[args.table].rows):
            unknown.append(args.against)
        if unknown:
            parser.error(
                f'{args.table} has no row {unknown[0]}: it has {", ".join(TABLES[args.table].rows)}'
            )
    if args.command in ('show', 'run') and args.epochs is not None and args.epochs < 2:
        parser.error('--epochs is at least 2: the first of some schedules warms up')
    if args.command == 'run':
        if args.jobs < 1:
            parser.error('--jobs is at least 1')
        parts = {part for row in TABLES[args.table].rows.values() for part in row.runs if part}
        if unknown := [part for part in args.without if part not in parts]:
            known = ', '.join(sorted(parts)) or 'none'
            parser.error(f'{args.table} has no part {unknown[0]}: it has {known}')
    return args


def list_tables(console: Console) -> None:
    grid = Grid('table', 'page', 'title', 'rows', 'can be run on')
    for name, table in TABLES.items():
        kinds = {kind for row in table.rows.values() for kind in row.datasets()}
        runnable = sum(bool(row.runs) for row in table.rows.values())
        where = ', '.join(d for d in DATASETS if d in kinds) or '-'
        grid.add_row(name, str(table.page), table.title, f'{runnable} of {len(table.rows)}', where)
    console.print(grid)


def settings_of(args: argparse.Namespace) -> Settings:
    return Settings(
        args.dataset, args.epochs, tuple(args.seeds), args.extractor, args.cfg_options,
        args.work_dir, tuple(args.metrics),
    )  # fmt: skip


def chosen_rows(table: Table, names: list[str] | None) -> dict[str, Row]:
    return {name: row for name, row in table.rows.items() if not names or name in names}


def command_of(args: argparse.Namespace, row: str) -> str:
    """Return the command that runs one row with the same options."""
    words = [
        'python',
        'projects/paper/run.py',
        'run',
        args.table,
        '--rows',
        row,
        '--dataset',
        args.dataset,
    ]
    if args.epochs:
        words += ['--epochs', str(args.epochs)]
    words += ['--seeds', *map(str, args.seeds)]
    if args.extractor:
        words += ['--extractor', args.extractor]
    if args.cfg_options:
        words += ['--cfg-options', *(f'{k}={v}' for k, v in args.cfg_options.items())]
    if args.metrics:
        words += ['--metrics', *args.metrics]
    if args.against:
        words += ['--against', args.against]
    if getattr(args, 'without', ()):
        words += ['--without', *args.without]
    return shlex.join(words)


def lines_of(args: argparse.Namespace, plan: RunPlan, earlier: bool = False) -> list[report.Line]:
    """Return lines of the chosen rows and, with ``earlier``, of those of earlier commands."""
    asked = chosen_rows(plan.table, args.rows)
    lines = []
    for name, row in (plan.table.rows if earlier else asked).items():
        try:
            lines.append(plan.line(name, row, command_of(args, name)))
        except ValueError:  # --cfg-options do not fit it
            if name in asked:
                raise
    return [line for line in lines if line.name in asked or line.measured]


def wide(lines: list[report.Line], title: str) -> Grid:
    """Return the table in the layout of the paper."""
    columns = report.columns_of(lines)
    rows = [[line.name, *(report.cell(line, column) for column in columns)] for line in lines]
    heads = ['row', *columns]
    widths = [max(map(len, cells)) for cells in zip(heads, *rows, strict=True)]
    whole = (Column(h, no_wrap=True, min_width=w) for h, w in zip(heads, widths, strict=True))
    grid = Grid(*whole, 'state', title=title)
    for row, line in zip(rows, lines, strict=True):
        grid.add_row(*row, line.note)
    return grid


def long(lines: list[report.Line], title: str) -> Grid:
    """Return the table with one figure a line, if it is wider than the terminal."""
    grid = Grid('row', 'state, figures', title=title)
    for line in lines:
        grid.add_row(line.name, line.note, style='bold')
        for column in report.columns_of([line]):
            if cell := report.cell(line, column):
                grid.add_row(f'  {column}', cell)
        grid.add_section()
    return grid


def show(args: argparse.Namespace, console: Console) -> None:
    table = TABLES[args.table]
    plan = RunPlan(table, settings_of(args))
    lines = lines_of(args, plan)
    page = f', page {table.page}' if table.page else ''
    title = f'{args.table}{page}: {table.title}'
    grid = wide(lines, title)
    wanted = console.measure(grid, options=console.options.update(width=10_000)).minimum
    console.print(grid if wanted <= console.width else long(lines, title))
    if subtracted := report.differences(lines, args.against):
        small = Grid(*subtracted[0], title='means of the differences by seed ± standard error')
        for row in subtracted[1:]:
            small.add_row(*row)
        console.print(small)
    for sentence in (table.brackets(args.dataset), *report.orders(lines)):
        console.print(sentence, soft_wrap=True)
    trained = [name for name, row in chosen_rows(table, args.rows).items() if plan.runs(row)]
    if trained:
        console.print(f'a row: {command_of(args, trained[0])}', soft_wrap=True)


def run(args: argparse.Namespace, console: Console) -> int:
    """Train unfinished runs and write the tables; return 1 if a run failed."""
    table = TABLES[args.table]
    plan = RunPlan(table, settings_of(args))
    rows = chosen_rows(table, args.rows)
    folders, kinds = {}, {}
    for name, row in rows.items():
        for why in plan.missing(row):
            console.print(f'{name}: {why}', soft_wrap=True)
        for folder in plan.folders(name, row, args.without):
            folders[folder.path], kinds[folder.path] = folder, row.kind
    if not folders:
        raise ValueError('nothing to train: choose other --rows or another --dataset')
    timed = [(folder, (args.dataset, kinds[path])) for path, folder in folders.items()]
    console.print(duration(timed, args.jobs), soft_wrap=True)
    out = args.out or args.work_dir / args.dataset
    title = f'{args.table}: {table.title}, on {args.dataset}'
    with running.lock(args.work_dir):
        try:
            running.run_all(list(folders.values()), args.jobs, console)
        finally:
            paths = report.write_all(
                out,
                args.table,
                title,
                lines_of(args, plan, earlier=True),
                table.brackets(args.dataset),
                args.against,
            )
            console.print('written: ' + ', '.join(map(str, paths)), soft_wrap=True)
    failed = [folder for folder in folders.values() if folder.state == 'failed']
    for folder in failed:
        console.print(f'failed: {folder.path}: {folder.why}', soft_wrap=True)
    if failed:
        console.print('run the same command again to retry what failed')
    return 1 if failed else 0


def dump(args: argparse.Namespace, console: Console) -> None:
    """Write the config of each training of the rows."""
    table = TABLES[args.table]
    for name in args.rows:
        row = table.rows[name]
        if not row.runs:
            raise ValueError(f'{args.table} {name} is not run here: {row.why}')
        for part, one in row.runs.items():
            cfg = load(one, args.dataset or one.home, args.extractor)
            label = '_'.join(filter(None, [args.table, name.replace('/', '.'), part]))
            path = args.out / f'{label}.py'
            write(path, cfg.pretty_text)
            console.print(f'written: {path}', soft_wrap=True)


def work(args: argparse.Namespace, console: Console) -> int | None:
    if args.command == 'list':
        list_tables(console)
        return None
    return {'show': show, 'run': run, 'dump': dump}[args.command](args, console)


def main() -> int:
    args = parse_args()
    # brackets in a run's error are not markup
    return exit_status(lambda: work(args, Console(highlight=False, markup=False)))


if __name__ == '__main__':
    sys.exit(main())
