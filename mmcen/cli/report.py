"""Write one self-contained HTML page about a training: `mmcen report WORK_DIR`. It has scores,
curves, exchange by layer and channel, scores by class, pictures and the configuration."""

from __future__ import annotations

import argparse
import base64
import html
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from ..files import write

if TYPE_CHECKING:
    from ..visualization.run_log import RunLog, Series

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 1rem auto; padding: 0 1rem;
       color: #222; }
h2 { border-bottom: 1px solid #ccc; margin-top: 2.5rem; }
table { border-collapse: collapse; }
th, td { padding: .15rem .8rem; text-align: right; border-bottom: 1px solid #eee; }
th:first-child, td:first-child { text-align: left; }
td.best { font-weight: bold; }
p.warning { background: #fff3cd; border-left: 4px solid #e0a800; padding: .6rem 1rem; }
div.wide { overflow-x: auto; }
div.wide img { min-width: 40rem; }
img { max-width: 100%; }
@media (max-width: 40rem) { th, td { padding: .15rem .35rem; font-size: 13px; } }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: 12px; }
"""
SHEETS = 3


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='mmcen report', description=__doc__)
    parser.add_argument('work_dir', type=Path, help='work directory of a training')
    parser.add_argument('--out', type=Path, help='default: WORK_DIR/report.html')
    return parser.parse_args(argv)


def page(run: RunLog) -> str:
    """Return the page as HTML."""
    title = html.escape(run.work_dir.resolve().name)
    body = '\n'.join(
        f'<h2 id="{name}">{heading}</h2>\n{content}'
        for name, heading, content in sections(run)
        if content
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n{warning(run)}{body}\n</body></html>\n'
    )


def warning(run: RunLog) -> str:
    """Return a warning for a run in which nothing is exchanged, or an empty string."""
    shares = [y for name, (_, y) in run.training.items() if name.startswith('exchanged/')]
    shares += [y for layers in run.exchange.values() for _, y in layers.values()]
    if not shares or any(y[-1] > 0 for y in shares):
        return ''
    was = any((y > 0).any() for y in shares)
    what = 'is exchanged at the end of this run' if was else 'was exchanged in this run'
    return (
        f'<p class="warning">Nothing {what}: the ensemble alone fuses its streams. Exchange under '
        'a budget, or raise the coefficient of SparsityHook, the learning rate of the scales or '
        'the threshold; see docs/exchange.md.</p>\n'
    )


def sections(run: RunLog) -> Iterator[tuple[str, str, str]]:
    from ..visualization.figures import curves, exchange_by_layer, mask_by_layer

    yield 'scores', 'Scores', scores(run)
    yield (
        'curves',
        'Curves',
        ''.join(
            image(curves(group, step, colours(run)), heading)
            for heading, step, group in (
                ('training', 'iteration', training_groups(run)),
                ('validation', 'epoch', validation_groups(run)),
            )
            if group
        ),
    )
    yield (
        'exchange',
        'Exchange by layer',
        image(exchange_by_layer(run.exchange), 'exchange by layer') if run.exchange else '',
    )
    yield (
        'mask',
        'Exchanged channels',
        image(mask_by_layer(run.masks, list(run.exchange)), 'exchanged channels by layer')
        if run.masks
        else '',
    )
    yield 'classes', 'Classes', classes(run)
    yield 'pictures', 'Pictures', pictures(run)
    if run.config is not None:
        text = html.escape(run.config.read_text())
        yield (
            'configuration',
            'Configuration',
            f'<details><summary>{run.config.name}</summary><pre>{text}</pre></details>',
        )


def scores(run: RunLog) -> str:
    """Return a table of metrics of the last and the best validation."""
    rows = [
        (name, f'{y[-1]:.2f}', f'{x[-1]:g}', f'{y.min():.2f}', f'{y.max():.2f}')
        for group in by_metric(run).values()
        for name, (x, y) in group.items()
    ]
    return table(('metric', 'last', 'at epoch', 'lowest', 'highest'), rows) if rows else ''


def training_groups(run: RunLog) -> dict[str, dict[str, Series]]:
    """Return panels: losses, exchanged shares, budget, churn, ensemble scores, learning rates."""
    found = run.training
    chosen = {
        'loss': [n for n in found if n == 'loss' or '.loss' in n or n.startswith('loss')],
        'exchanged share': [n for n in found if n.startswith(('exchanged/', 'budget/'))],
        'churn': [n for n in found if n == 'churn'],
        'decision scores': [n for n in found if n.startswith('alpha/')],
        'learning rate': [n for n in found if n.endswith('lr')],
    }
    return {
        title: {n: found[n] for n in run.in_order(names)}
        for title, names in chosen.items()
        if names
    }


def by_metric(run: RunLog) -> dict[str, dict[str, Series]]:
    """Return the scores of each metric: streams in the order of the model, then ensembles."""
    groups: dict[str, dict[str, Series]] = {}
    for name in run.in_order(run.validation):
        groups.setdefault(name.rsplit('/', 1)[-1], {})[name] = run.validation[name]
    return groups


def validation_groups(run: RunLog) -> dict[str, dict[str, Series]]:
    """Return a panel for each metric that was measured more than once."""
    groups = {
        metric: {name: series for name, series in group.items() if len(series[0]) > 1}
        for metric, group in by_metric(run).items()
    }
    return {metric: group for metric, group in groups.items() if group}


def colours(run: RunLog) -> dict[str, str]:
    """Return the colour of each logged value: all values of an output have the same.

    The colours of streams are those of the figure of exchanged channels.
    """
    chosen = {stream: f'C{i % 10}' for i, stream in enumerate(run.streams)} | {'': 'black'}
    found = {'loss': 'grey', 'base_lr': 'grey'}  # sums over outputs
    for name in run.in_order(run.training | run.validation):
        colour = chosen.setdefault(run.output_of(name), f'C{(len(chosen) - 1) % 10}')
        found.setdefault(name, colour)
    return found


def classes(run: RunLog) -> str:
    """Return a table of the IoU of each class and stream."""
    found = {name: run.classes[name] for name in run.streams if name in run.classes}
    found |= run.classes  # the ensemble last
    if not found:
        return ''
    rows = []
    for name in next(iter(found.values())):
        values = [by_class[name][0] for by_class in found.values()]
        rows.append((name, *(f'{value:.2f}' for value in values)))
    return table(('IoU of class, %', *found), rows, best=True)


def pictures(run: RunLog) -> str:
    """Return the last sheets, newest first."""
    return ''.join(
        f'<p>{path.name}</p>{picture(path.read_bytes(), path.name)}'
        for path in reversed(run.sheets[-SHEETS:])
    )


def table(head: tuple, rows: list[tuple], best: bool = False) -> str:
    def cells(row: tuple) -> str:
        top = max(row[1:], key=float) if best else None
        return ''.join(
            f'<td{" class=best" * (i > 0 and cell == top)}>{html.escape(cell)}</td>'
            for i, cell in enumerate(row)
        )

    heads = ''.join(f'<th>{html.escape(cell)}</th>' for cell in head)
    body = ''.join(f'<tr>{cells(row)}</tr>' for row in rows)
    rows_of = f'<thead><tr>{heads}</tr></thead><tbody>{body}</tbody>'
    return f'<div class="wide"><table>{rows_of}</table></div>'


def image(figure: Figure, what: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format='png')
    return picture(buffer.getvalue(), what)


def picture(data: bytes, what: str) -> str:
    encoded = base64.b64encode(data).decode()
    what = html.escape(what)
    return f'<div class="wide"><img alt="{what}" src="data:image/png;base64,{encoded}"></div>\n'


def report(args: argparse.Namespace) -> None:
    print(f'drawing {args.work_dir} ...', file=sys.stderr, flush=True)
    from ..visualization.run_log import RunLog

    out = args.out or args.work_dir / 'report.html'
    write(out, page(RunLog(args.work_dir)))
    print(f'written: {out}')


def main(argv: Sequence[str] | None = None) -> None:
    report(parse_args(argv))
