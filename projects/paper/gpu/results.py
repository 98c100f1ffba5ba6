"""Results that are complete at every second: a JSON line a figure, and a summary for people."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

Row = dict[str, Any]
HEADINGS = {  # of the figures of speed
    'peak': 'FLOP/s of matrix products',
    'time': 'Training step and inference',
    'waits': 'What waits for the device in one training step, and how often',
    'fps': 'Frames per second, one at a time',
    'streams': 'Training step by number of streams',
    'official_step': "Training step of image translation against the official code's",
    'compiled': 'Training step with torch.compile',
    'failed': 'Failed',
}


class Results:
    """Writes ``results.jsonl`` and ``summary.md`` into a folder.

    Args:
        folder: Made if it is missing; its results of before are continued.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.path = folder, folder / 'results.jsonl'
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.rows: list[Row] = [json.loads(line) for line in lines]
        self.start = time.monotonic()

    def add(self, part: str, **values: Any) -> None:
        """Add a row to both files."""
        row = {'part': part, 'at': round(time.monotonic() - self.start, 1), **values}
        self.rows.append(row)
        with self.path.open('a') as file:
            file.write(json.dumps(row) + '\n')
            file.flush()
            os.fsync(file.fileno())
        new = self.folder / 'summary.md.new'
        new.write_text(summary(self.rows))
        new.replace(self.folder / 'summary.md')


def summary(rows: list[Row]) -> str:
    """All rows as Markdown."""
    parts = [
        '# A day on a GPU',
        *(_environment(row) for row in rows if row['part'] == 'environment'),
        _tests([row for row in rows if row['part'] == 'tests']),
        _speed([row for row in rows if row['part'] == 'speed']),
        _training([row for row in rows if row['part'] == 'training']),
    ]
    return '\n\n'.join(part for part in parts if part) + '\n'


def _environment(row: Row) -> str:
    hidden = ('part', 'at')
    return '\n'.join(f'- {key}: {value}' for key, value in row.items() if key not in hidden)


def _tests(rows: list[Row]) -> str:
    if not rows:
        return ''
    counts = {word: sum(row.get('outcome') == word for row in rows)
              for word in ('PASSED', 'FAILED', 'ERROR', 'SKIPPED')}  # fmt: skip
    said = ', '.join(f'{count} {word.lower()}' for word, count in counts.items() if count)
    bad = [
        f'- {r["outcome"]}: {r["test"]}' for r in rows if r.get('outcome') in ('FAILED', 'ERROR')
    ]
    return '\n'.join(['## Tests', '', said or 'none ended', *bad, *_words(rows)])


def _speed(rows: list[Row]) -> str:
    kinds = dict.fromkeys(row['figure'] for row in rows if 'figure' in row)
    tables = []
    for kind in kinds:
        own = [{k: v for k, v in row.items() if k not in ('part', 'at', 'figure')}
               for row in rows if row.get('figure') == kind]  # fmt: skip
        tables.append(f'### {HEADINGS[kind]}\n\n{table(own)}')
    words = '\n'.join(_words(rows))
    return '\n\n'.join(part for part in ('## Speed', *tables, words) if part) if rows else ''


def _training(rows: list[Row]) -> str:
    if not rows:
        return ''
    last: dict[str, Row] = {}
    for row in rows:
        if 'method' in row:
            last.setdefault(row['method'], {}).update(row)
    keys = ('method', 'epochs', 'epoch', 'seconds', 'loss', 'exchanged', 'mIoU', 'mAcc', 'aAcc',
            'rgb/mIoU', 'depth/mIoU')  # fmt: skip
    shown = [{key: row[key] for key in keys if key in row} for row in last.values()]
    tables = [table(shown)] if shown else []
    return '\n'.join(['## Training', '', *tables, *_words(rows)])


def _words(rows: list[Row]) -> list[str]:
    return [f'\n{row["note"]}' for row in rows if 'note' in row]


def table(rows: list[Row]) -> str:
    """Rows as a Markdown table, with a column for each key."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [keys, ['---'] * len(keys), *([_cell(row.get(key)) for key in keys] for row in rows)]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ''
    if isinstance(value, float):
        return f'{value:.4g}'
    return str(value).replace('|', '/').replace('\n', ' ')
