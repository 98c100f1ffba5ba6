"""Finished runs beside the published figures: Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from mmcen.files import write

COSTS = {
    'parameters': 'params M',
    'fusion_parameters': 'fusion M',
    'multiply_adds': 'GMAC',
    'deployed_multiply_adds': 'GMAC deployed',
}
UNITS = {
    'parameters': 1e6,
    'fusion_parameters': 1e6,
    'multiply_adds': 1e9,
    'deployed_multiply_adds': 1e9,
}


@dataclass
class Line:
    """A row of a table with its present results.

    Args:
        name: Name of the row.
        published: Figures of the paper by column, None if it has none.
        measured: Values by finished seed, by column; empty if nothing was run.
        exchanged: Share of each seed's channels, if some could be exchanged.
        costs: Values by key of :data:`COSTS`.
        note: Missing parts, or the number of finished seeds.
        command: Command that runs this row.
    """

    name: str
    published: dict[str, float | None]
    measured: dict[str, dict[int, float]] = field(default_factory=dict)
    exchanged: list[float] = field(default_factory=list)
    costs: dict[str, float] = field(default_factory=dict)
    note: str = ''
    command: str = ''


def columns_of(lines: Sequence[Line]) -> list[str]:
    """Return columns with a figure: published ones first, then further measured ones."""
    names = dict.fromkeys(
        [name for line in lines for name in line.published]
        + [name for line in lines for name in line.measured]
    )
    return [name for name in names if any(cell(line, name) for line in lines)]


def mean_and_deviation(values: Collection[float]) -> tuple[float, float | None]:
    """Return mean and sample deviation over seeds; no deviation for a single seed."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def cell(line: Line, column: str, plus_minus: str = ' ± ') -> str:
    """Format ``measured ± deviation (published)``, without missing parts."""
    parts = []
    if values := line.measured.get(column):
        mean, deviation = mean_and_deviation(values.values())
        digits = 2 if mean >= 1 else 3  # errors within 0..1 are printed so
        spread = f'{plus_minus}{deviation:.{digits}f}' if deviation else ''
        parts.append(f'{mean:.{digits}f}{spread}')
    if (published := line.published.get(column)) is not None:
        parts.append(f'({published})')
    return ' '.join(parts)


def _rows(lines: Sequence[Line], plus_minus: str) -> tuple[list[str], list[list[str]]]:
    columns = columns_of(lines)
    costs = [key for key in COSTS if any(line.costs.get(key) for line in lines)]
    head = ['row', *columns, *(COSTS[key] for key in costs), 'note']
    body = [
        [
            line.name,
            *(cell(line, column, plus_minus) for column in columns),
            *(f'{line.costs[k] / UNITS[k]:.3g}' if k in line.costs else '' for k in costs),
            line.note,
        ]
        for line in lines
    ]
    return head, body


def _warning(lines: Sequence[Line]) -> list[str]:
    """Which rows could have exchanged channels, and exchanged none in any seed."""
    idle = [line.name for line in lines if line.exchanged and not any(line.exchanged)]
    if not idle:
        return []
    return [f'**Nothing was exchanged in {", ".join(idle)}**: the ensemble alone fuses there.', '']


def orders(lines: Sequence[Line]) -> list[str]:
    """Compare the order of the rows with the paper's: a sentence for each column.

    Pairs of rows are counted, so half of them agree by chance. Pairs with equal published figures
    are left out, and so are columns with a single pair.
    """
    sentences = []
    for column in columns_of(lines):
        both = [
            (statistics.fmean(line.measured[column].values()), published)
            for line in lines
            if line.measured.get(column) and (published := line.published.get(column)) is not None
        ]
        pairs = [(a, b) for a, b in combinations(both, 2) if a[1] != b[1]]
        agree = sum((a[0] - b[0]) * (a[1] - b[1]) > 0 for a, b in pairs)
        if len(pairs) > 1:
            sentences.append(
                f'Order of rows by {column}: {agree} of {len(pairs)} pairs as in the paper.'
            )
    return sentences


def differences(lines: Sequence[Line], against: str) -> list[list[str]]:
    """Subtract one row from the others, seed by seed.

    Args:
        lines: Rows.
        against: Name of the row to subtract.

    Returns:
        The head and the rows of a table of means, with standard errors where there are several
        seeds; empty if nothing can be subtracted.
    """
    own = next((line.measured for line in lines if line.name == against), {})
    table = [[f'minus {against}', *own, 'seeds']]
    for line in lines:
        row, counts = [line.name], set()
        for column, subtracted in own.items():
            measured = line.measured.get(column, {})
            pairs = [value - subtracted[s] for s, value in measured.items() if s in subtracted]
            mean, deviation = mean_and_deviation(pairs) if pairs else (None, None)
            error = '' if deviation is None else f' ± {deviation / len(pairs) ** 0.5:.2f}'
            row.append('' if mean is None else f'{mean:+.2f}{error}')
            counts.add(len(pairs))
        if line.name != against and any(row[1:]):
            table.append([*row, str(max(counts))])
    return table if len(table) > 1 else []


def markdown(title: str, lines: Sequence[Line], brackets: str, against: str = '') -> str:
    """Return a table in Markdown.

    Args:
        title: Heading.
        lines: Rows.
        brackets: Sentence that says what the figures in brackets are.
        against: Row that is subtracted from the others, see :func:`differences`; '' for none.
    """
    head, body = _rows(lines, ' ± ')
    table = [head, ['---'] * len(head), *body]
    subtracted = differences(lines, against)
    if subtracted:
        subtracted.insert(1, ['---'] * len(subtracted[0]))
        table += [[], ['Means of the differences by seed ± standard error:'], [], *subtracted]
    commands = [f'- {line.name}: `{line.command}`' for line in lines if line.command]
    return '\n'.join(
        [
            f'# {title}',
            '',
            *_warning(lines),
            f'Measured mean ± deviation over seeds. {brackets}',
            '',
            *('| ' + ' | '.join(row) + ' |' if len(row) > 1 else ''.join(row) for row in table),
            '',
            *(f'- {sentence}' for sentence in orders(lines)),
            '',
            *(['Commands:', '', *commands] if commands else []),
            '',
        ]
    )


def latex(title: str, lines: Sequence[Line], brackets: str, against: str = '') -> str:
    """Return a table in LaTeX without differences; arguments as for :func:`markdown`."""
    head, body = _rows(lines, r' $\pm$ ')
    rows = [' & '.join(_escape(word) for word in row) + r' \\' for row in (head, *body)]
    return '\n'.join(
        [
            f'% {title}',
            f'% {brackets}',
            rf'\begin{{tabular}}{{l{"r" * (len(head) - 2)}l}}',
            r'\toprule',
            rows[0],
            r'\midrule',
            *rows[1:],
            r'\bottomrule',
            r'\end{tabular}',
            '',
        ]
    )


def _escape(word: str) -> str:
    for char in '%_&#':
        word = word.replace(char, '\\' + char)
    return word


def comma_separated(title: str, lines: Sequence[Line], brackets: str, against: str = '') -> str:
    """Write CSV without differences: every figure unrounded in a separate cell."""
    columns = columns_of(lines)
    head = ['row']
    for column in columns:
        head += [f'{column} mean', f'{column} deviation', f'{column} published']
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow([*head, *COSTS, 'seeds', 'note', 'command'])
    for line in lines:
        row: list[object] = [line.name]
        for column in columns:
            values = line.measured.get(column)
            row += mean_and_deviation(values.values()) if values else (None, None)
            row.append(line.published.get(column))
        seeds = max((len(values) for values in line.measured.values()), default=0)
        writer.writerow([*row, *(line.costs.get(k) for k in COSTS), seeds, line.note, line.command])
    return out.getvalue()


FORMATS: dict[str, Callable[[str, Sequence[Line], str, str], str]] = {
    'md': markdown,
    'csv': comma_separated,
    'tex': latex,
}


def write_all(
    out: Path, name: str, title: str, lines: Sequence[Line], brackets: str, against: str = ''
) -> list[Path]:
    """Write all formats, and return the files; arguments as for :func:`markdown`."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f'{name}.{ending}' for ending in FORMATS]
    for path, render in zip(paths, FORMATS.values(), strict=True):
        write(path, render(title, lines, brackets, against))
    return paths
