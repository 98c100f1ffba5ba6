"""Draw inputs, predictions and ground truth side by side, as in Figs. 4 and 5 of the paper."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mmengine.structures import BaseDataElement
from mmseg.structures import SegDataSample
from torch import Tensor

from ..files import whole_file
from ..outputs import ENSEMBLE

Colours = Sequence[Sequence[int]]
LEGEND_ENTRY = 1.15  # inches of the longest names of NYUv2, such as "shower curtain"


def prediction_sheet(
    inputs: Sequence[dict[str, Tensor]],
    samples: Sequence[SegDataSample],
    path: str | Path,
    classes: Sequence[str] = (),
    palette: Colours = (),
) -> Path:
    """Write a row for each frame: inputs, and predictions and ground truth of each task.

    Predictions are those of every stream and of the ensemble. A single stream equals the ensemble
    and has no separate panel. Modalities that no stream takes are left out.

    Args:
        inputs: Modalities (C, H, W) of each frame, as from PackModalities. If the model predicts
            images, they are images in 0..255; else colour is, and others have any range.
        samples: Predictions of the frames, see :mod:`mmcen.outputs`; class maps may have their
            label in ``gt_sem_seg``.
        path: PNG file to write; its folder is made.
        classes: K names for class maps.
        palette: K colours for class maps, RGB in 0..255.

    Returns:
        The path.

    Raises:
        ValueError: If there is nothing to draw, inputs and samples differ in number, or class maps
            have no palette.
    """
    if not samples or len(inputs) != len(samples):
        raise ValueError(
            f'{len(inputs)} inputs and {len(samples)} samples: give one sample to each input'
        )
    of_classes = [
        task for task, own in samples[0].outputs.items() if 'pred_sem_seg' in own.get(ENSEMBLE)
    ]
    if of_classes and not len(palette):
        raise ValueError(f'tasks {of_classes} predict classes: give classes and palette')
    rows = [_panels(frame, sample, palette) for frame, sample in zip(inputs, samples, strict=True)]
    return draw_sheet(rows, path, *((classes, palette) if of_classes else ()))


def _panels(
    frame: dict[str, Tensor], sample: SegDataSample, palette: Colours
) -> dict[str, np.ndarray]:
    """Return the images of a frame by title."""
    outputs = {task: dict(own.items()) for task, own in sample.outputs.items()}
    taken = {name for own in outputs.values() for name in own} & set(frame)
    of_images = any('pred' in own[ENSEMBLE] for own in outputs.values())
    draw = _image if of_images else picture
    panels = {name: draw(x) for name, x in frame.items() if name in taken or not taken}
    targets = sample.get('targets', BaseDataElement())
    for task, own in outputs.items():
        streams = [name for name in own if name != ENSEMBLE]
        for name in streams if len(streams) > 1 else ():
            panels[f'{task}\nfrom {name}'] = _prediction(own[name], palette)
        word = 'ensemble' if len(streams) > 1 else 'prediction'
        panels[f'{task}\n{word}'] = _prediction(own[ENSEMBLE], palette)
        if task in targets:
            panels[f'{task}\nground truth'] = _image(targets.get(task))
        elif 'pred_sem_seg' in own[ENSEMBLE] and 'gt_sem_seg' in sample:
            panels[f'{task}\nground truth'] = class_colours(sample.gt_sem_seg.data, palette)
    return panels


def _prediction(output: BaseDataElement, palette: Colours) -> np.ndarray:
    if 'pred_sem_seg' in output:
        return class_colours(output.pred_sem_seg.data, palette)
    return _image(output.pred)


def _image(value: Tensor) -> np.ndarray:
    """Convert (3, H, W) or (1, H, W) in 0..255 to (H, W, 3) uint8."""
    image = value.detach().cpu().float().round().clamp(0, 255).numpy().astype(np.uint8)
    return np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)


def draw_sheet(
    rows: Sequence[dict[str, np.ndarray]],
    path: str | Path,
    classes: Sequence[str] = (),
    palette: Colours = (),
) -> Path:
    """Write a :func:`sheet` as PNG atomically.

    Args:
        rows: See :func:`sheet`.
        path: File to write; its folder is made.
        classes: See :func:`sheet`.
        palette: See :func:`sheet`.

    Returns:
        The path.
    """
    return save_figure(sheet(rows, classes, palette), path)


def sheet(
    rows: Sequence[dict[str, np.ndarray]], classes: Sequence[str] = (), palette: Colours = ()
) -> Figure:
    """Draw rows of images under the titles of the first row.

    Args:
        rows: Images for imshow by title; each row has the same number.
        classes: K names for a legend; empty for none.
        palette: K colours for a legend, RGB in 0..255.
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
        patches = _patches(classes, palette)
        figure.legend(handles=patches, loc='outside lower center', ncols=columns, fontsize=7)
    return figure


def draw_legend(path: str | Path, classes: Sequence[str], palette: Colours) -> Path:
    """Write the K classes' names and colours as PNG atomically."""
    columns = math.ceil(len(classes) / 10)
    figure = Figure(figsize=(1.6 * columns, 0.2 + 0.21 * math.ceil(len(classes) / columns)))
    figure.legend(handles=_patches(classes, palette), loc='center', ncols=columns, fontsize=8)
    return save_figure(figure, path)


def _patches(classes: Sequence[str], palette: Colours) -> list[Patch]:
    return [
        Patch(color=(r / 255, g / 255, b / 255), label=name)
        for name, (r, g, b) in zip(classes, palette, strict=True)
    ]


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a PNG atomically; its folder is made."""
    path = Path(path)
    with whole_file(path) as part:
        figure.savefig(part, dpi=120, format='png')
    return path


def class_colours(labels: Tensor, palette: Colours) -> np.ndarray:
    """Convert a class map (1, H, W) or (H, W) to colours (H, W, 3) uint8; void is black."""
    table = np.zeros((2**16, 3), np.uint8)
    if len(palette):
        table[: len(palette)] = palette
    return table[labels.detach().cpu().squeeze().numpy().astype(np.uint16)]


def picture(value: Tensor) -> np.ndarray:
    """Convert (C, H, W) for imshow: colour unchanged, other values scaled to their range."""
    array = value.detach().cpu().numpy().transpose(1, 2, 0)  # (H, W, C)
    if array.dtype == np.uint8 and array.shape[2] == 3:
        return array
    array = array.astype(np.float32)
    low, high = array.min(), array.max()
    array = (array - low) / max(high - low, 1e-12)
    return array if array.shape[2] == 3 else array[..., 0]
