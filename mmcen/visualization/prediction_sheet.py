"""Side-by-side pictures of inputs, label and predictions, as Fig. 4 of the paper."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mmseg.structures import SegDataSample
from torch import Tensor


def prediction_sheet(
    inputs: Sequence[dict[str, Tensor]],
    samples: Sequence[SegDataSample],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    path: str | Path,
) -> Path:
    """Write one row for each frame: its modalities, the label if there is one, every stream, the
    ensemble.

    Args:
        inputs: by frame, modality name to (C, H, W), as PackModalities gives them: colour 0..255,
            others any range.
        samples: what the model predicts for them (``pred_sem_seg``, ``streams``, perhaps
            ``gt_sem_seg``).
        classes: K names.
        palette: K colours, RGB 0..255.
        path: the picture to write; its folder is made.

    Returns:
        The path.

    Raises:
        ValueError: if there is nothing to draw, or inputs and samples differ in number.
    """
    if not samples or len(inputs) != len(samples):
        raise ValueError(
            f'{len(inputs)} inputs and {len(samples)} samples: give one sample to each input'
        )
    rows = [
        _panels(frame, sample, np.array(palette))
        for frame, sample in zip(inputs, samples, strict=True)
    ]
    height, width = next(iter(inputs[0].values())).shape[-2:]
    figure = Figure(
        figsize=(2.2 * len(rows[0]), 2.2 * height / width * len(rows) + 1.0), layout='constrained'
    )
    axes = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for axis, title in zip(axes[0], rows[0], strict=True):
        axis.set_title(title, fontsize=9)
    for row, panels in zip(axes, rows, strict=True):
        for axis, picture in zip(row, panels.values(), strict=True):
            axis.imshow(picture, interpolation='nearest')
            axis.set_axis_off()
    patches = [
        Patch(color=(r / 255, g / 255, b / 255), label=name)
        for name, (r, g, b) in zip(classes, palette, strict=True)
    ]
    figure.legend(
        handles=patches, loc='outside lower center', ncols=min(len(patches), 10), fontsize=7
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _panels(
    frame: dict[str, Tensor], sample: SegDataSample, palette: np.ndarray
) -> dict[str, np.ndarray]:
    panels = {name: _picture(value) for name, value in frame.items()}
    if 'gt_sem_seg' in sample:
        panels['label'] = _colours(sample.gt_sem_seg.data, palette)
    streams = sample.get('streams')
    for name in streams.keys() if streams is not None else ():
        panels[f'from {name}'] = _colours(streams.get(name).pred_sem_seg.data, palette)
    panels['ensemble'] = _colours(sample.pred_sem_seg.data, palette)
    return panels


def _picture(value: Tensor) -> np.ndarray:
    """(C, H, W) to what imshow takes: colour as it is, anything else scaled to its own range."""
    picture = value.detach().cpu().numpy().transpose(1, 2, 0)  # (H, W, C)
    if picture.dtype == np.uint8 and picture.shape[2] == 3:
        return picture
    picture = picture.astype(np.float32)
    low, high = picture.min(), picture.max()
    picture = (picture - low) / max(high - low, 1e-12)
    return picture if picture.shape[2] == 3 else picture[..., 0]


def _colours(labels: Tensor, palette: np.ndarray) -> np.ndarray:
    """Class map (1, H, W) or (H, W) to (H, W, 3) uint8; void is black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    return table[labels.detach().cpu().squeeze().numpy().astype(np.uint8)]
