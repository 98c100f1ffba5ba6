"""Damage inputs of every kind, and sort what comes of it: ``python -m tests.fuzz --cases 5000``."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.progress import track

from mmcen import register

from . import files, programs, workers
from .outcomes import BAD, BARE, CRASH, HANG, OUTCOMES, Case, Watch, sort
from .world import World, make_world

# How often a kind comes up, of 100.
KINDS: dict[str, tuple[int, Callable[[random.Random, World], Case]]] = {
    'picture': (22, files.picture),
    'odd .npy': (5, files.odd_npy),
    'array': (6, files.array),
    'list of frames': (6, files.frame_list),
    'list of pairs': (2, files.pairs),
    'video': (2, files.video),
    'checkpoint': (10, files.checkpoint),
    'resume': (3, files.resumed),
    'ONNX': (10, files.onnx_file),
    'archive': (4, files.archive),
    'spec': (8, programs.spec),
    'option': (8, programs.option),
    'config': (2, programs.config),
    'request': (6, programs.request),
    'command': (6, programs.command),
}
BARE_SHARE = 0.005  # of all cases


def kind_of(number: int) -> str:
    """The kind of a case by its number, evenly spread."""
    order = [kind for kind, (count, _) in KINDS.items() for _ in range(count)]
    random.Random(0).shuffle(order)
    return order[number % len(order)]


def run(
    numbers: Sequence[int], seed: int = 0, show: bool = False
) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Run cases.

    Args:
        numbers: Of the cases; a case depends on its number and the seed alone.
        seed: Of all random choices.
        show: Show a bar, and faults as they occur.

    Returns:
        Counts by kind and outcome, and a line about each bad case.
    """
    register()
    counts: Counter[tuple[str, str]] = Counter()
    faults, before = [], os.getcwd()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        world = make_world(folder)
        watch: list[Watch] = []

        def prepare() -> None:
            os.chdir(folder)
            os.environ['TMPDIR'] = tempfile.tempdir = str(folder / 'tmp')
            sys.dont_write_bytecode = True
            torch.set_num_threads(1)
            programs.patches()
            watch.append(Watch(folder))

        def work(number: int) -> tuple[str, str]:
            torch.manual_seed(0)
            case = KINDS[kind_of(number)][1](random.Random(f'{seed} {number}'), world)
            (folder / 'running').write_text(case.note)  # for one that never answers
            return sort(case, watch[0])

        os.chdir(folder)
        try:
            answers = workers.run(numbers, work, prepare)
            bar = track(answers, 'damaging', len(numbers)) if show else answers
            for number, outcome, detail, seconds in bar:
                counts[kind_of(number), outcome] += 1
                if outcome in (CRASH, HANG):
                    detail = f'{(folder / "running").read_text()}: {detail}'
                if outcome in BAD or len(numbers) == 1:
                    line = f'{outcome} ({kind_of(number)}, --only {number}): {detail}'
                    faults.append(' '.join(line.split()))
                    if show:
                        print(faults[-1], flush=True)
                counts['seconds', kind_of(number)] += round(1000 * seconds)
        finally:
            os.chdir(before)
    return counts, faults


def table(counts: Counter[tuple[str, str]]) -> str:
    """Counts by kind, as Markdown."""
    lines = ['| kind | cases | ' + ' | '.join(OUTCOMES) + ' |', '|---' * (len(OUTCOMES) + 2) + '|']
    for kind in (*KINDS, 'all'):
        row = [
            sum(n for (k, o), n in counts.items() if o == outcome and kind in (k, 'all'))
            for outcome in OUTCOMES
        ]
        lines.append(f'| {kind} | {sum(row)} | ' + ' | '.join(map(str, row)) + ' |')
    return '\n'.join(lines)


def main() -> int:
    """Print the counts and what is bad; fail if there are bad outcomes, or many bare errors."""
    parser = argparse.ArgumentParser(prog='python -m tests.fuzz', description=__doc__)
    parser.add_argument('--cases', type=int, default=5000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', type=int, help='run this case alone, and say what comes of it')
    parser.add_argument('--kind', choices=list(KINDS), help='run cases of this kind alone')
    args = parser.parse_args()
    torch.set_num_threads(1)
    numbers = range(args.cases) if args.only is None else [args.only]
    chosen = [n for n in numbers if args.kind in (None, kind_of(n))]
    counts, faults = run(chosen, args.seed, show=True)
    if args.only is None:
        print(f'{len(faults)} faults\n{table(counts)}')
        for kind in KINDS:
            print(f'{counts["seconds", kind] / 1000:8.1f} s {kind}', file=sys.stderr)
    bad = sum(n for (_, outcome), n in counts.items() if outcome in BAD and outcome != BARE)
    bare = sum(n for (_, outcome), n in counts.items() if outcome == BARE)
    return int(bad > 0 or bare > BARE_SHARE * len(chosen))


if __name__ == '__main__':
    sys.exit(main())
