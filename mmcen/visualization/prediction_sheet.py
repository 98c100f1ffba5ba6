"""Side-by-side pictures of inputs, label and predictions, as Fig. 4 of the paper."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmseg.structures import SegDataSample
from torch import Tensor

from .sheet import Colours, check_pairs, class_colours, draw_sheet, in_order, picture


def prediction_sheet(
    inputs: Sequence[dict[str, Tensor]],
    samples: Sequence[SegDataSample],
    classes: Sequence[str],
    palette: Colours,
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
        path: the picture to write, a PNG; its folder is made.

    Returns:
        The path.

    Raises:
        ValueError: if there is nothing to draw, or inputs and samples differ in number.
    """
    check_pairs(inputs, samples)
    rows = [_panels(frame, sample, palette) for frame, sample in zip(inputs, samples, strict=True)]
    return draw_sheet(rows, path, classes, palette)


def _panels(
    frame: dict[str, Tensor], sample: SegDataSample, palette: Colours
) -> dict[str, np.ndarray]:
    panels = {name: picture(value) for name, value in frame.items()}
    if 'gt_sem_seg' in sample:
        panels['label'] = class_colours(sample.gt_sem_seg.data, palette)
    streams = sample.get('streams')
    for name in in_order(streams.keys(), frame) if streams is not None else ():
        panels[f'from {name}'] = class_colours(streams.get(name).pred_sem_seg.data, palette)
    panels['ensemble'] = class_colours(sample.pred_sem_seg.data, palette)
    return panels
