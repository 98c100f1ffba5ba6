"""Draw the paper's figures of scales and exchange, and curves of a run, by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .run_log import Series

WIDTH = 9.0
LINES = ('-', '--', ':', '-.')


def curves(
    groups: Mapping[str, Mapping[str, Series]],
    step: str = 'step',
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """Draw a panel for each group of series; a name has the same colour in all panels.

    Args:
        groups: Series by name, by title of the panel.
        step: Label of the x axis.
        colours: Colour of each name. Names of one colour get different lines in a panel.
    """
    names = dict.fromkeys(name for lines in groups.values() for name in lines)
    if colours is None:
        colours = {name: f'C{i}' for i, name in enumerate(names)} if len(names) <= 10 else {}
    rows = (len(groups) + 1) // 2
    figure = Figure(figsize=(WIDTH, 2.6 * rows), layout='constrained')
    axes = figure.subplots(rows, min(2, len(groups)), squeeze=False).flatten()
    for axis, (title, lines) in zip(axes, groups.items(), strict=False):
        used: list[str | None] = []
        for name, (x, y) in lines.items():
            colour, marker = colours.get(name), '.' if len(x) < 20 else ''
            style = LINES[used.count(colour) % len(LINES)] if colour else '-'
            used.append(colour)
            axis.plot(x, y, color=colour, marker=marker, label=name, linestyle=style)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(step, fontsize=8)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    for axis in axes[len(groups) :]:
        axis.set_axis_off()
    return figure


def exchange_by_layer(exchange: Mapping[str, Mapping[str, Series]]) -> Figure:
    """Draw exchanged shares: a row for each layer, a column for each step, a panel for each stream.

    The colours end at 0.5, the sub-part of one of two streams, unless a share is higher.
    """
    layers = list(next(iter(exchange.values())))
    figure = Figure(
        figsize=(max(WIDTH, 3 * len(exchange)), 1.4 + 0.17 * len(layers)), layout='constrained'
    )
    axes = figure.subplots(1, len(exchange), squeeze=False, sharey=True)[0]
    highest = max(y.max() for by_layer in exchange.values() for _, y in by_layer.values())
    top = 0.5 if highest <= 0.5 else 1.0
    for axis, (stream, by_layer) in zip(axes, exchange.items(), strict=True):
        steps = sorted({step for x, _ in by_layer.values() for step in x})
        image = np.full((len(layers), len(steps)), np.nan)
        for i, layer in enumerate(layers):
            x, y = by_layer[layer]
            image[i, np.searchsorted(steps, x)] = y
        shown = axis.imshow(image, aspect='auto', vmin=0, vmax=top, interpolation='nearest')
        axis.set_title(stream, fontsize=10)
        axis.set_xlabel('step', fontsize=8)
        places = np.linspace(0, len(steps) - 1, min(5, len(steps))).astype(int)
        axis.set_xticks(places, [f'{steps[i]:g}' for i in places], fontsize=7)
        axis.set_yticks(range(len(layers)), layers, fontsize=6)
    figure.colorbar(shown, ax=axes, label='exchanged share')
    return figure


def mask_by_layer(masks: Mapping[str, np.ndarray], streams: Sequence[str]) -> Figure:
    """Draw the exchanged channels: a row for each layer, with a line for each stream.

    A line is coloured where a channel comes from the other streams.

    Args:
        masks: Mask of each layer, boolean (S, C); channels are drawn over the full width.
        streams: Names of S streams.
    """
    colours = np.array([to_rgb(f'C{s % 10}') for s in range(len(streams))])[:, None]  # (S, 1, 3)
    height = 1.2 + len(masks) * (0.08 + 0.07 * len(streams))
    figure = Figure(figsize=(WIDTH, height), layout='constrained')
    axis = figure.subplots()
    for i, mask in enumerate(masks.values()):
        image = np.where(mask[..., None], colours, 0.93)  # (S, C, 3)
        axis.imshow(image, extent=(0, 1, i + 0.42, i - 0.42), aspect='auto')
    axis.set_xlim(0, 1)
    axis.set_ylim(len(masks) - 0.5, -0.5)
    axis.set_xticks([])
    axis.set_xlabel('channels of a layer, in order', fontsize=8)
    names = [f'{name} ({mask.shape[1]})' for name, mask in masks.items()]
    axis.set_yticks(range(len(masks)), names, fontsize=6)
    patches = [
        Patch(color=tuple(colour[0]), label=f'{name}: {_share(masks, s):.0%} from the others')
        for s, (name, colour) in enumerate(zip(streams, colours, strict=True))
    ]
    figure.legend(handles=patches, loc='outside upper center', ncols=len(streams), fontsize=8)
    return figure


def _share(masks: Mapping[str, np.ndarray], stream: int) -> float:
    """Return the exchanged share of a stream's channels over all layers."""
    return float(np.concatenate([mask[stream] for mask in masks.values()]).mean())


def scale_proportions(
    layers: Mapping[str, np.ndarray], thresholds: Mapping[str, float], streams: Sequence[str]
) -> Figure:
    """Draw the proportions of the scaling factors, Figs. 7 and 12.

    Each channel is a bar, divided in proportion to |gamma| of the streams. It is white if all are
    below the threshold, if there is one.

    Args:
        layers: |gamma| of each layer, (S, C).
        thresholds: Theta of each layer; 0 for exchange without a threshold.
        streams: Names of S streams.
    """
    figure = Figure(figsize=(WIDTH, 1.0 + 0.9 * len(layers)), layout='constrained')
    axes = figure.subplots(len(layers), 1, squeeze=False)[:, 0]
    for axis, (layer, gamma) in zip(axes, layers.items(), strict=True):
        alive = (gamma >= thresholds[layer]).any(0)
        share = np.where(alive, gamma / np.maximum(gamma.sum(0), 1e-12), 0)  # (S, C)
        bottoms = np.concatenate([np.zeros_like(share[:1]), share.cumsum(0)[:-1]])
        channels = np.arange(gamma.shape[1])
        for name, height, bottom in zip(streams, share, bottoms, strict=True):
            axis.bar(channels, height, 1.0, bottom, label=name)
        axis.set_xlim(-0.5, len(channels) - 0.5)
        axis.set_ylim(0, 1)
        axis.set_yticks([])
        axis.tick_params(labelsize=6)
        axis.set_title(layer, fontsize=7, loc='left', pad=2)
    axes[-1].set_xlabel('channel', fontsize=8)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc='outside upper center', ncols=len(streams), fontsize=8)
    return figure


def scales_over_training(
    steps: Sequence[float],
    gamma: np.ndarray,
    groups: Mapping[str, np.ndarray],
    threshold: float | None,
    title: str,
) -> Figure:
    """Draw scaling factors of one stream and layer, Fig. 8: a line for each channel.

    Args:
        steps: N times.
        gamma: Scaling factors (N, C).
        groups: Channels of each panel, boolean (C,), by title.
        threshold: Theta, drawn as a line; None for exchange without a threshold.
        title: Title of the figure.
    """
    figure = Figure(figsize=(WIDTH, 3.2), layout='constrained')
    axes = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
    for axis, (name, which) in zip(axes, groups.items(), strict=True):
        axis.plot(steps, gamma[:, which], linewidth=0.6)
        for place in () if threshold is None else (-threshold, threshold):
            axis.axhline(place, color='black', linestyle=':', linewidth=0.8)
        axis.set_title(f'{name}, {which.sum()} channels', fontsize=9)
        axis.set_xlabel('epoch', fontsize=8)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel('gamma', fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def feature_categories(
    pictures: Mapping[str, np.ndarray],
    averages: Mapping[str, Mapping[str, np.ndarray | None]],
    counts: Mapping[str, int],
) -> Figure:
    """Draw mean feature maps by channel category, Fig. 3: a row for each stream.

    Args:
        pictures: Input of each stream for imshow.
        averages: Mean map (h, w) by stream and category, None if there is no such channel.
        counts: Number of channels of each category.
    """
    figure = Figure(
        figsize=(2.4 * (1 + len(counts)), 2.1 * len(pictures) + 0.4), layout='constrained'
    )
    axes = figure.subplots(len(pictures), 1 + len(counts), squeeze=False)
    for row, (stream, image) in zip(axes, pictures.items(), strict=True):
        row[0].imshow(image)
        row[0].set_ylabel(stream)
        row[0].set_xticks([])
        row[0].set_yticks([])
        for axis, category in zip(row[1:], counts, strict=True):
            average = averages[stream][category]
            if average is None:
                axis.text(0.5, 0.5, 'none', ha='center', va='center', transform=axis.transAxes)
            else:
                shown = axis.imshow(average)
                figure.colorbar(shown, ax=axis, shrink=0.7).ax.tick_params(labelsize=6)
            axis.set_xticks([])
            axis.set_yticks([])
            if stream == next(iter(pictures)):
                axis.set_title(f'{category}\n{counts[category]} channels', fontsize=8)
    return figure


def sensitivity(
    points: Mapping[str, Mapping[str, Sequence[tuple[float, float, float, float]]]], metric: str
) -> Figure:
    """Draw Fig. 9: a metric and the exchanged share against a factor on lambda or theta.

    Args:
        points: (factor, mean, deviation, share in %) by parameter and way ('exchange', 'zero').
        metric: Name of the metric.
    """
    figure = Figure(figsize=(WIDTH, 3.2), layout='constrained')
    axes = figure.subplots(1, len(points), squeeze=False)[0]
    for axis, (parameter, ways) in zip(axes, points.items(), strict=True):
        right = axis.twinx()
        for way, values in ways.items():
            x, mean, deviation, share = np.array(sorted(values)).T
            line = axis.errorbar(x, mean, deviation, marker='o', capsize=3, label=way)
            right.plot(x, share, linestyle=':', color=line[0].get_color())
        axis.set_xscale('log')
        axis.set_title(f'{parameter}, times its default', fontsize=9)
        axis.set_ylabel(metric, fontsize=8)
        right.set_ylabel('exchanged, % (dotted)', fontsize=8)
        right.set_ylim(0, 100)
        axis.legend(fontsize=7)
    return figure


def cost(points: Mapping[str, tuple[float, float, float]], metric: str) -> Figure:
    """Draw a metric against the multiply-adds of networks.

    Args:
        points: Multiply-adds in 10^9, mean and deviation of the metric by network.
        metric: Name of the metric.
    """
    figure = Figure(figsize=(0.7 * WIDTH, 3.6), layout='constrained')
    axis = figure.subplots()
    for i, (name, (count, mean, deviation)) in enumerate(points.items()):
        marker = 'osD^v<>PX'[i % 9]  # with ten colours no pair repeats
        axis.errorbar(count, mean, deviation, marker=marker, linestyle='', capsize=3, label=name)
    axis.set_xlabel('multiply-adds of the deployed network, G', fontsize=8)
    axis.set_ylabel(metric, fontsize=8)
    axis.legend(fontsize=7, loc='center left', bbox_to_anchor=(1, 0.5))
    return figure


def robustness(
    scores: Mapping[str, Mapping[str, float]], groups: Sequence[str], metric: str
) -> Figure:
    """Draw the scores of models with failing sensors, a line for each case.

    Args:
        scores: Score by case, by name of the model; all have the same cases.
        groups: Group of each case; a gap is between groups.
        metric: Name of the score.
    """
    cases = list(next(iter(scores.values())))
    changes = [0, *(a != b for a, b in pairwise(groups))]
    places = np.arange(len(cases)) + np.cumsum(changes)
    figure = Figure(figsize=(WIDTH, 1.2 + 0.2 * len(cases)), layout='constrained')
    axis = figure.subplots()
    for i, (name, own) in enumerate(scores.items()):
        marker = 'osD^v<>PX'[i % 9]
        axis.plot([own[case] for case in cases], places, marker, markersize=4, label=name)
    axis.set_yticks(places, cases, fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel(metric, fontsize=8)
    axis.grid(linewidth=0.4)
    axis.legend(fontsize=7, loc='upper center', bbox_to_anchor=(0.4, -0.06), ncols=3)
    return figure
