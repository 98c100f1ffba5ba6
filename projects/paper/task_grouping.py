"""Choose the tasks that should share an encoder, by metrics of finished trainings.

This is Task Grouping. Train networks for single tasks, pairs and so on. Give each as
TASK+TASK=FILE, where FILE is the translation_metric.json of its last evaluation, or its
vis_data/scalars.json (the last validation is used). Prints the best choice within the budget, and
its line for the config.

Example:
    python projects/paper/task_grouping.py --metric MAE --budget 2 \\
        normal=work_dirs/n/translation_metric.json \\
        depth_euclidean=work_dirs/d/translation_metric.json \\
        normal+depth_euclidean=work_dirs/both/20261101_120000/vis_data/scalars.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from rich.console import Console
from rich.table import Table

from mmcen.evaluation.translation_metric import FEATURE_METRICS, PIXEL_METRICS
from projects.paper.rivals.grouping import Grouping, Tasks, best_grouping


def read_metrics(path: Path) -> dict[str, float]:
    """Read the last value of every metric in a file of JSON, as a whole or by lines.

    Raises:
        ValueError: If the file is not JSON.
    """
    text = path.read_text(encoding='utf-8')
    try:
        records = [json.loads(text)]
    except json.JSONDecodeError:
        try:
            records = [json.loads(line) for line in text.splitlines() if line.strip()]
        except json.JSONDecodeError as error:
            raise ValueError(f'{path} is not JSON, neither as a whole nor by lines') from error
    values: dict[str, float] = {}
    for record in records:
        if not isinstance(record, dict):
            raise ValueError(f'{path} holds {type(record).__name__}, not names and values')
        values.update(record.get('metrics', record))
    return values


def read_losses(runs: Sequence[str], metric: str) -> dict[Tasks, dict[str, float]]:
    """Read losses by set of tasks, from arguments ``TASK+TASK=FILE``.

    Raises:
        ValueError: If an argument has another form, a set is given twice, or a file lacks the
            metric.
    """
    losses: dict[Tasks, dict[str, float]] = {}
    for run in runs:
        names, _, file = run.partition('=')
        tasks = tuple(names.split('+'))
        if not file or not all(tasks):
            raise ValueError(f"'{run}' is not TASK+TASK=FILE, such as normal+depth=metric.json")
        if tasks in losses:
            raise ValueError(f'{names} is given twice: keep one file')
        values = read_metrics(Path(file))
        missing = [task for task in tasks if f'{task}/{metric}' not in values]
        if missing:
            known = sorted(key for key in values if key.count('/') == 1)
            raise ValueError(
                f"{file} lacks '{missing[0]}/{metric}', it has {known}: correct task or --metric"
            )
        losses[tasks] = {task: float(values[f'{task}/{metric}']) for task in tasks}
    return losses


def make_table(losses: dict[Tasks, dict[str, float]], best: Grouping, metric: str) -> Table:
    """Return a table with a row for each network and a column for each task; choices are bold."""
    table = Table(title=f'{metric} by network; chosen: total {best.total:.4g}')
    table.add_column('network')
    for task in best.serves:
        table.add_column(task, justify='right')
    for network, own in losses.items():
        cells = [
            ('[bold green]{:.4g} *[/]' if best.serves[task] == network else '{:.4g}').format(
                own[task]
            )
            if task in own
            else ''
            for task in best.serves
        ]
        chosen = network in best.networks
        table.add_row(
            f'[bold green]{"+".join(network)}[/]' if chosen else '+'.join(network), *cells
        )
    return table


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('runs', nargs='+', metavar='TASK+TASK=FILE', help='metrics of a training')
    parser.add_argument(
        '--metric',
        default='MAE',
        choices=(*PIXEL_METRICS, *FEATURE_METRICS),
        help='metric of every task, lower is better; default: %(default)s',
    )
    parser.add_argument(
        '--budget', type=int, default=2, help='largest number of encoders; default 2'
    )
    parser.add_argument(
        '--tasks',
        nargs='+',
        help='tasks in the order of model.tasks; default: in order of appearance',
    )
    args = parser.parse_args()
    try:
        args.losses = read_losses(args.runs, args.metric)
        args.best = best_grouping(args.losses, args.budget)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    args.tasks = args.tasks or list(args.best.serves)
    if sorted(args.tasks) != sorted(args.best.serves):
        parser.error(
            f'--tasks {args.tasks} are not those of the networks, {list(args.best.serves)}'
        )
    return args


def main() -> None:
    args = parse_args()
    console = Console()
    console.print(make_table(args.losses, args.best, args.metric))
    for network, tasks in args.best.helpers.items():
        console.print(
            f'{"+".join(network)} was trained with {", ".join(tasks)}, which another network '
            'serves: the line below leaves that help out',
            style='yellow',
        )
    print(f'tasks in the order of {", ".join(args.tasks)}:')
    print(f'encoder=dict(groups={args.best.groups(args.tasks)})')


if __name__ == '__main__':
    main()
