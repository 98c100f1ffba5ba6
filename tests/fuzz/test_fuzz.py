"""Short runs of the harnesses."""

from collections import Counter

import pytest

from . import files, kills, programs
from .__main__ import KINDS, kind_of, run, table
from .outcomes import BAD, RIGHT


def test_kills():
    counts = kills.run(6)
    assert sum(counts[way] for way in kills.WAYS) == 6
    assert counts['within a write'] == 2
    assert counts['left over'] == 0
    assert counts['same'] >= 3
    assert not [what for what in counts if what.startswith('lost')], counts


def test_damage():
    counts, faults = run([n for n in range(130) if kind_of(n) != 'config'][:100])
    assert not faults, table(counts) + '\n'.join(faults)


WHOLE = [kind for kind in KINDS if kind != 'command']


@pytest.fixture(scope='module')
def undamaged():
    """Counts and faults of some cases of each kind, in which nothing is damaged."""
    numbers = []
    for kind in WHOLE:
        count = {'config': 2, 'checkpoint': 8}.get(kind, 30)
        numbers += [n for n in range(900) if kind_of(n) == kind][:count]
    with pytest.MonkeyPatch.context() as patch:
        for module in (files, programs):
            for name in ('damage', 'mutate'):
                if hasattr(module, name):
                    patch.setattr(module, name, lambda value, draw: (value, ''))
        return run(numbers)


@pytest.mark.parametrize('kind', WHOLE)
def test_what_is_not_damaged_is_read(kind, undamaged):
    """The harness sees a right result as one."""
    counts, faults = undamaged
    found = Counter({outcome: n for (k, outcome), n in counts.items() if k == kind})
    assert found[RIGHT] > 0, faults
    assert not any(found[outcome] for outcome in BAD)
