#!/usr/bin/env python
"""Draw the picture of the idea: ``python docs/pictures/idea.py`` writes idea.png beside itself."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

COLOURS = {'rgb': '#d1495b', 'depth': '#00798c'}
GAMMAS = {
    'rgb': [0.9, 0.0, 0.7, 0.0, 0.8, 0.6, 0.9, 0.5],
    'depth': [0.8, 0.6, 0.9, 0.7, 0.0, 0.8, 0.6, 0.0],
}
ROWS = {'rgb': 3.2, 'depth': 0.6}
THRESHOLD = 0.1


def main() -> None:
    figure = Figure(figsize=(11, 4.3), layout='constrained')
    axes = figure.subplots()
    axes.set_xlim(-2.6, 17.4)
    axes.set_ylim(-1.3, 5.4)
    axes.set_axis_off()
    box(axes, -0.3, -0.1, 1.5, 5.0, '#dddddd')
    axes.text(0.45, 2.4, 'shared\nconvolution', rotation=90, ha='center', va='center')
    for i, (name, y) in enumerate(ROWS.items()):
        colour = COLOURS[name]
        axes.text(-2.5, y + 0.5, name, color=colour, weight='bold', size=13, va='center')
        arrow(axes, (-1.3, y + 0.5), (-0.3, y + 0.5), '#555555')
        arrow(axes, (1.2, y + 0.5), (1.9, y + 0.5), '#555555')
        bars(axes, 2.0, y, GAMMAS[name], colour, own=range(4 * i, 4 * i + 4))
        arrow(axes, (7.6, y + 0.5), (8.6, y + 0.5), '#555555')
        for c in range(8):
            other = 'depth' if name == 'rgb' else 'rgb'
            taken = c in range(4 * i, 4 * i + 4) and GAMMAS[name][c] < THRESHOLD
            x = 8.8 + 0.65 * c
            shade = COLOURS[other] if taken else colour
            axes.add_patch(Rectangle((x, y), 0.5, 1.0, color=shade, alpha=0.85, lw=0))
            if taken:
                start = (x + 0.25, ROWS[other] + (1.0 if other == 'depth' else 0.0))
                end = (x + 0.25, y + (0.0 if name == 'rgb' else 1.0))
                arrow(axes, start, end, COLOURS[other])
        arrow(axes, (14.1, y + 0.5), (15.0, y + 0.5), '#555555')
    box(axes, 15.0, -0.1, 1.5, 5.0, '#dddddd')
    axes.text(15.75, 2.4, 'shared\nconvolution', rotation=90, ha='center', va='center')
    axes.text(4.7, -0.75, r'private norms: scale $|\gamma|$ of each channel', ha='center')
    small = dict(ha='center', size=9, color='#555555')
    axes.text(4.7, -1.2, 'the hatched half carries the penalty', **small)
    axes.text(11.4, -0.75, r'where $|\gamma|<\theta$, the channel of the other stream', ha='center')
    axes.text(11.4, -1.2, 'no parameters; the network chooses', **small)
    figure.savefig(Path(__file__).with_suffix('.png'), dpi=110)


def bars(axes, x: float, y: float, gammas: list[float], colour: str, own: range) -> None:
    for c, gamma in enumerate(gammas):
        left = x + 0.68 * c
        if c in own:
            corner = (left - 0.08, y - 0.1)
            hatch = Rectangle(corner, 0.68, 1.2, fill=False, hatch='///', ec='#cccccc', lw=0)
            axes.add_patch(hatch)
        axes.add_patch(Rectangle((left, y), 0.5, max(gamma, 0.03), color=colour, lw=0))
    axes.plot([x - 0.1, x + 5.4], np.full(2, y + THRESHOLD), ls=':', lw=1, color='#333333')
    axes.text(x + 5.45, y + THRESHOLD, r'$\theta$', va='center', size=9)


def box(axes, x: float, y: float, width: float, height: float, colour: str) -> None:
    style = 'round,pad=0,rounding_size=0.15'
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, color=colour, lw=0))


def arrow(axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle='-|>', mutation_scale=11, color=colour, lw=1.3)
    )


if __name__ == '__main__':
    main()
