"""Mean absolute error and F-measure of saliency, of the ensemble and of every stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from ..outputs import ENSEMBLE, SEGMENTATION

BETA_SQUARED = 0.3  # as usual since Achanta et al. (CVPR 2009): precision counts more
LEVELS = 256


@METRICS.register_module()
class SaliencyMetric(BaseMetric):
    """MAE within 0..1 as in Table 14, and the largest and mean F-measure over thresholds.

    The metrics are of the ensemble (``MAE``, ``maxF``, ``meanF``), each stream (``rgb/MAE``, ...)
    and, if samples have a ``pseudo_label``, of that (``pseudo/MAE``, ...), the state before any
    training. If samples have a ``dataset``, it is part of the name (``njud/MAE``, ``njud/rgb/MAE``,
    ...).

    Metrics are means over frames. Pixels with ``255 * saliency >= t`` are salient at a threshold t
    of 0, 1, ... 255.

    Args:
        stretch: Whether to scale each map to 0..1 first, as the code of reference [82] does.
        kwargs: Arguments of mmengine's BaseMetric.

    Raises:
        ValueError: If a sample has no mask, or a mask with other values than 0 and 1.
    """

    def __init__(self, stretch: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stretch = stretch

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            mask = self._mask(sample)
            maps = {
                '' if name == ENSEMBLE else f'{name}/': output['seg_logits']['data'][0]
                .cpu()
                .numpy()
                for name, output in sample['outputs'][SEGMENTATION].items()
            }
            if 'pseudo_label' in sample:
                maps['pseudo/'] = np.asarray(sample['pseudo_label'])
            start = f'{sample["dataset"]}/' if 'dataset' in sample else ''
            self.results.append(
                {start + name: self._measure(saliency, mask) for name, saliency in maps.items()}
            )

    def compute_metrics(self, results: list[Mapping[str, tuple]]) -> dict[str, float]:
        metrics = {}
        for prefix in dict.fromkeys(name for result in results for name in result):
            errors, curves = zip(*(r[prefix] for r in results if prefix in r), strict=True)
            curve = np.mean(curves, 0)
            metrics[f'{prefix}MAE'] = float(np.mean(errors))
            metrics[f'{prefix}maxF'] = float(curve.max())
            metrics[f'{prefix}meanF'] = float(curve.mean())
        return metrics

    def _mask(self, sample: Mapping) -> np.ndarray:
        if 'gt_sem_seg' not in sample:
            raise ValueError(f'{sample.get("img_path")} has no mask to measure by: load it')
        mask = sample['gt_sem_seg']['data'][0].cpu().numpy()
        if mask.max() > 1:
            raise ValueError(
                f'{sample.get("img_path")} has a mask of values up to {mask.max()}, but 0 is '
                'background and 1 salient: load it by LoadMask'
            )
        return mask

    def _measure(self, saliency: np.ndarray, mask: np.ndarray) -> tuple[float, np.ndarray]:
        if self.stretch:
            low, high = saliency.min(), saliency.max()
            saliency = (saliency - low) / max(high - low, 1e-8)
        return float(np.abs(saliency - mask).mean()), f_measures(saliency, mask)


def f_measures(saliency: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Compute the F-measure at every threshold.

    Args:
        saliency: Map within 0..1.
        mask: Map of 0 and 1, of the same shape.

    Returns:
        (256,) within 0..1; 0 where no salient pixel is found.

    Examples:
        >>> f_measures(np.array([0.9, 0.1]), np.array([1, 0]))[[0, 128, 255]].round(2)
        array([0.57, 1.  , 0.  ])
    """
    values = np.floor(np.clip(saliency, 0, 1) * (LEVELS - 1)).astype(np.int64)
    counts = [np.bincount(values[mask == side].ravel(), minlength=LEVELS) for side in (0, 1)]
    wrong, right = (count[::-1].cumsum()[::-1] for count in counts)  # at or above each threshold
    found, wanted = right + wrong, mask.sum()
    # (1 + b) P R / (b P + R) with P = right / found and R = right / wanted
    return (1 + BETA_SQUARED) * right / np.maximum(BETA_SQUARED * wanted + found, 1)
