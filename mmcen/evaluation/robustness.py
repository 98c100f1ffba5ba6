"""The cases of a test with failing sensors, and their summary.

The scenarios are those of Liao et al., "Benchmarking Multi-modal Semantic Segmentation under Sensor
Failures: Missing and Noisy Modality Robustness" (CVPR workshops 2025): entire modalities missing,
parts of a modality missing at random, and noisy modalities. The levels are our own choice, and so
are the physical corruptions of colour and depth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from matplotlib.figure import Figure

SUBSETS, MISSING, NOISE, PHYSICAL = 'subsets', 'missing', 'noise', 'physical'
SHARES = (0.25, 0.5, 0.75)
NOISES = (0.25, 0.5, 1.0)  # standard deviations of the frame
FAILURES = (0.05, 0.1, 0.2)
PHYSICAL_OF_COLOUR = (('darkness', 0.1), ('over_exposure', 3.0), ('motion_blur', 15))
PHYSICAL_OF_DEPTH = (('distance_noise', 0.01), ('quantise', 8))
SHIFT = ('shift', 8)
MOST = 6  # modalities: 63 subsets
UNITS = {
    'missing_pixels': '{:.0%}',
    'missing_blocks': '{:.0%}',
    'noise': '{} sd',
    'darkness': 'to {:.0%} of the light',
    'over_exposure': 'by {:g} times the light',
    'motion_blur': '{} px',
    'shift': 'by {} px',
    'quantise': 'to {} bits',
    'distance_noise': '{} m at 1 m',
}


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Args:
        group: ``'subsets'``, ``'missing'``, ``'noise'`` or ``'physical'``.
        present: Names of the model's inputs that are present.
        corruption: Arguments of a :class:`~mmcen.datasets.transforms.CorruptModality`, or none.
    """

    group: str
    present: tuple[str, ...]
    corruption: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the row is called."""
        if not self.corruption:
            return ' + '.join(self.present)
        kind, level = self.corruption['kind'], self.corruption['level']
        words = f'{kind.replace("_", " ")} {UNITS[kind].format(level)}'
        return f'{self.corruption["modality"]}: {words}'


def cases(inputs: Sequence[str], kinds: Mapping[str, str]) -> list[Case]:
    """List what to test, all inputs first.

    Args:
        inputs: Names of the model's inputs.
        kinds: By name of a modality of the test set, ``'colour'``, ``'depth'`` or ``'raw'``.

    Raises:
        ValueError: If there are too many inputs for all of their subsets.

    Example:
        >>> [case.name for case in cases(['rgb', 'depth'], dict(rgb='colour', depth='depth'))[:4]]
        ['rgb + depth', 'rgb', 'depth', 'rgb: missing pixels 25%']
    """
    if len(inputs) > MOST:
        raise ValueError(f'{len(inputs)} inputs have too many subsets: {MOST} at most are tested')
    every = tuple(inputs)
    sizes = range(len(every), 0, -1)
    found = [Case(SUBSETS, subset) for n in sizes for subset in combinations(every, n)]

    def add(group: str, modality: str, kind: str, level: float) -> None:
        found.append(Case(group, every, dict(modality=modality, kind=kind, level=level, seed=0)))

    for name in kinds:
        for kind in ('missing_pixels', 'missing_blocks'):
            for share in SHARES:
                add(MISSING, name, kind, share)
    for name in kinds:
        for level in NOISES:
            add(NOISE, name, 'noise', level)
    for i, (name, kind) in enumerate(kinds.items()):
        of_kind = {'colour': PHYSICAL_OF_COLOUR, 'depth': PHYSICAL_OF_DEPTH}.get(kind, ())
        for corruption in (*of_kind, *((SHIFT,) if i else ())):
            add(PHYSICAL, name, *corruption)
    return found


def expectation(scores: Mapping[tuple[str, ...], float], failure: float) -> float:
    """Return the expected score if each modality fails with a probability, independently.

    Frames on which all modalities fail are left out, because there is nothing to predict from.

    Args:
        scores: By subset of the modalities that are present; all subsets but the empty one.
        failure: Probability that a modality fails, 0 to below 1.

    Example:
        >>> expectation({('a', 'b'): 50.0, ('a',): 40.0, ('b',): 20.0}, 0.5)
        36.666666666666664
    """
    count = max(map(len, scores))
    chances = {s: (1 - failure) ** len(s) * failure ** (count - len(s)) for s in scores}
    return sum(chances[s] * scores[s] for s in scores) / sum(chances.values())


def summary(rows: Sequence[tuple[Case, float]], higher: bool = True) -> dict[str, float]:
    """Return what all rows amount to.

    Args:
        rows: Cases and their scores.
        higher: Whether a higher score is better, which decides the worst case.

    Returns:
        ``mean over subsets``, ``expectation at p = ...`` for each probability of failure, the
        ``mean`` of every further group, and ``worst case`` over all rows.
    """
    subsets = {case.present: score for case, score in rows if case.group == SUBSETS}
    found = {'mean over subsets': sum(subsets.values()) / len(subsets)}
    found |= {f'expectation at p = {p:g}': expectation(subsets, p) for p in FAILURES}
    for group in (MISSING, NOISE, PHYSICAL):
        own = [score for case, score in rows if case.group == group]
        if own:
            found[f'mean of {group}'] = sum(own) / len(own)
    scores = [score for _, score in rows]
    return found | {'worst case': min(scores) if higher else max(scores)}


def markdown(rows: Sequence[tuple[Case, float]], metric: str, higher: bool = True) -> str:
    """Return the table: cases by group with the difference from all inputs, then the summary."""
    whole = rows[0][1]
    lines = [f'| case | {metric} | difference |', '| --- | ---: | ---: |']
    group = ''
    for case, score in rows:
        if case.group != group:
            group = case.group
            lines.append(f'| **{group}** | | |')
        lines.append(f'| {case.name} | {score:.2f} | {score - whole:+.2f} |')
    lines.append('| **summary** | | |')
    for name, value in summary(rows, higher).items():
        lines.append(f'| {name} | {value:.2f} | {value - whole:+.2f} |')
    return '\n'.join(lines) + '\n'


def draw(rows: Sequence[tuple[Case, float]], metric: str, title: str = '') -> Figure:
    """Draw the rows as bars, coloured by group, with a line at the score of all inputs."""
    groups = list(dict.fromkeys(case.group for case, _ in rows))
    background = dict(facecolor='white', edgecolor='none', pad=0.5)  # over the line
    figure = Figure(figsize=(8, 1.2 + 0.24 * len(rows)), layout='constrained')
    axis = figure.subplots()
    places = [i + groups.index(case.group) for i, (case, _) in enumerate(rows)]  # a gap each
    for group in groups:
        own = [(y, s) for y, (c, s) in zip(places, rows, strict=True) if c.group == group]
        bars = axis.barh(*zip(*own, strict=True), color=f'C{groups.index(group)}', label=group)
        axis.bar_label(bars, fmt='%.1f', fontsize=7, padding=2, bbox=background)
    whole = rows[0][1]
    axis.axvline(whole, color='0.3', linewidth=0.8, linestyle='--', label='all inputs', zorder=0)
    axis.set_yticks(places, [case.name for case, _ in rows], fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel(metric)
    axis.set_title(title, fontsize=9)
    axis.margins(x=0.1, y=0.01)
    axis.legend(loc='upper center', bbox_to_anchor=(0.4, -0.06), ncols=5, fontsize=7)
    return figure
