"""Short runs of the harnesses."""

from . import kills


def test_kills():
    counts = kills.run(6)
    assert sum(counts[way] for way in kills.WAYS) == 6
    assert counts['within a write'] == 0 or counts['same']
    assert counts['left over'] == 0
    assert counts['same'] >= 3
    assert not [what for what in counts if what.startswith('lost')], counts
