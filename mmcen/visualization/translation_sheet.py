"""Side-by-side pictures of inputs, predictions and ground truth by task, as Fig. 5 of the paper."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.structures import BaseDataElement
from mmseg.structures import SegDataSample
from torch import Tensor

from .sheet import Colours, check_pairs, class_colours, draw_sheet, in_order


def translation_sheet(
    inputs: Sequence[dict[str, Tensor]],
    samples: Sequence[SegDataSample],
    path: str | Path,
    classes: Sequence[str] = (),
    palette: Colours = (),
) -> Path:
    """Write one row for each frame: its inputs, then for each task the prediction of every stream,
    the ensemble, and the ground truth if there is one.

    A single stream is its own ensemble and has no panel of its own. Domains that no stream takes
    are no inputs and are left out.

    Args:
        inputs: by frame, domain to (3, H, W) in 0..255, as EncodeDomains and PackModalities give
            them.
        samples: what the model predicts for them: ``tasks`` with ``pred`` (image, 0..255) or
            ``pred_sem_seg`` (classes), ``streams``, and ``gt`` or the sample's ``gt_sem_seg``.
        path: the picture to write, a PNG; its folder is made.
        classes: K names; needed for tasks of classes, which are drawn in the palette's colours.
        palette: K colours, RGB 0..255.

    Returns:
        The path.

    Raises:
        ValueError: if there is nothing to draw, inputs and samples differ in number, or a task of
            classes has no palette.
    """
    check_pairs(inputs, samples)
    of_classes = [task for task, own in samples[0].tasks.items() if 'pred_sem_seg' in own]
    if of_classes and not palette:
        raise ValueError(f'tasks {of_classes} predict classes: give classes and palette')
    rows = [_panels(frame, sample, palette) for frame, sample in zip(inputs, samples, strict=True)]
    return draw_sheet(rows, path, *((classes, palette) if of_classes else ()))


def _panels(
    frame: dict[str, Tensor], sample: SegDataSample, palette: Colours
) -> dict[str, np.ndarray]:
    tasks = {task: sample.tasks.get(task) for task in in_order(sample.tasks.keys(), frame)}
    taken = {name for own in tasks.values() for name in _streams(own)}
    panels = {name: _image(value) for name, value in frame.items() if name in taken or not taken}
    for task, own in tasks.items():
        streams = _streams(own)
        if len(streams) > 1:
            for name in in_order(streams, frame):
                panels[f'{task}\nfrom {name}'] = _prediction(streams[name], palette)
        word = 'ensemble' if len(streams) > 1 else 'prediction'
        panels[f'{task}\n{word}'] = _prediction(own, palette)
        truth = f'{task}\nground truth'
        if 'gt' in own:
            panels[truth] = _image(own.gt)
        elif 'pred_sem_seg' in own and 'gt_sem_seg' in sample:
            panels[truth] = class_colours(sample.gt_sem_seg.data, palette)
    return panels


def _streams(own: BaseDataElement) -> dict[str, BaseDataElement]:
    return dict(own.streams.items()) if 'streams' in own else {}


def _prediction(own: BaseDataElement, palette: Colours) -> np.ndarray:
    if 'pred_sem_seg' in own:
        return class_colours(own.pred_sem_seg.data, palette)
    return _image(own.pred)


def _image(value: Tensor) -> np.ndarray:
    """(3, H, W) or (1, H, W) in 0..255 to (H, W, 3) uint8."""
    image = value.detach().cpu().float().round().clamp(0, 255).numpy().astype(np.uint8)
    return np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)
