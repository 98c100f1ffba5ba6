"""What all sheets share: rows of titled panels, class colours, a legend, written atomically."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from ..files import whole_file

Colours = Sequence[Sequence[int]]
LEGEND_ENTRY = 1.15  # inches of the longest names of NYUv2, such as "shower curtain"


def check_pairs(inputs: Sequence, samples: Sequence) -> None:
    """Raise ValueError unless there is something to draw, and one sample for each input."""
    if not samples or len(inputs) != len(samples):
        raise ValueError(
            f'{len(inputs)} inputs and {len(samples)} samples: give one sample to each input'
        )


def draw_sheet(
    rows: Sequence[dict[str, np.ndarray]],
    path: str | Path,
    classes: Sequence[str] = (),
    palette: Colours = (),
) -> Path:
    """Write a :func:`sheet` as PNG, whole or not at all.

    Args:
        rows, classes, palette: of the sheet.
        path: the file; its folder is made.

    Returns:
        The path.
    """
    return save_figure(sheet(rows, classes, palette), path)


def sheet(
    rows: Sequence[dict[str, np.ndarray]], classes: Sequence[str] = (), palette: Colours = ()
) -> Figure:
    """Rows of pictures under the titles of the first row.

    Args:
        rows: title to picture as imshow takes it; the same number of pictures in each row.
        classes: K names of a legend, none without classes.
        palette: their K colours, RGB 0..255.
    """
    height, width = next(iter(rows[0].values())).shape[:2]
    wide = 2.2 * len(rows[0])  # inches
    columns = max(1, min(len(classes), int(wide / LEGEND_ENTRY)))
    high = 2.2 * height / width * len(rows) + 0.8 + 0.18 * math.ceil(len(classes) / columns)
    figure = Figure(figsize=(wide, high), layout='constrained')
    axes = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for axis, title in zip(axes[0], rows[0], strict=True):
        axis.set_title(title, fontsize=9)
    for row, panels in zip(axes, rows, strict=True):
        for axis, picture in zip(row, panels.values(), strict=True):
            axis.imshow(picture, interpolation='nearest')
            axis.set_axis_off()
    if classes:
        patches = [
            Patch(color=(r / 255, g / 255, b / 255), label=name)
            for name, (r, g, b) in zip(classes, palette, strict=True)
        ]
        figure.legend(handles=patches, loc='outside lower center', ncols=columns, fontsize=7)
    return figure


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a PNG whole or not at all; its folder is made."""
    path = Path(path)
    with whole_file(path) as part:
        figure.savefig(part, dpi=120, format='png')
    return path


def class_colours(labels: Tensor, palette: Colours) -> np.ndarray:
    """Class map (1, H, W) or (H, W) to (H, W, 3) uint8; void is black."""
    table = np.zeros((256, 3), np.uint8)
    if len(palette):
        table[: len(palette)] = palette
    return table[labels.detach().cpu().squeeze().numpy().astype(np.uint8)]


def in_order(names: Iterable[str], frame: Iterable[str]) -> list[str]:
    """Names in the order of the frame's domains, others after them by the alphabet: mmengine's data
    elements keep theirs in a set, whose order is another one in every run."""
    place = {name: i for i, name in enumerate(frame)}
    return sorted(names, key=lambda name: (place.get(name, len(place)), name))


def picture(value: Tensor) -> np.ndarray:
    """(C, H, W) to what imshow takes: colour as it is, anything else scaled to its own range."""
    array = value.detach().cpu().numpy().transpose(1, 2, 0)  # (H, W, C)
    if array.dtype == np.uint8 and array.shape[2] == 3:
        return array
    array = array.astype(np.float32)
    low, high = array.min(), array.max()
    array = (array - low) / max(high - low, 1e-12)
    return array if array.shape[2] == 3 else array[..., 0]
