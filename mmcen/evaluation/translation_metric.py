"""FID, KID, MAE, MSE and RMSE of every image task, for the ensemble and every stream, by name."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.logging import MMLogger, print_log
from mmengine.registry import EVALUATOR, METRICS
from torch import Tensor, nn

from ..files import whole_file
from ..outputs import ENSEMBLE
from .distances import frechet_distance, kernel_distance, pixel_errors
from .inception import build_extractor, provenance

FEATURE_METRICS = ('FID', 'KID')
PIXEL_METRICS = ('MAE', 'MSE', 'RMSE')
ENOUGH = 2048  # with fewer images than features, FID's covariances are singular


@METRICS.register_module()
class TranslationMetric(BaseMetric):
    """Metrics of Tables 4 to 9: ``rgb/FID`` of the ensemble, ``rgb/reshading/FID`` of a stream.

    - FID: Frechet distance of Inception features.
    - KID: unbiased estimate, mean over subsets, **times 100**.
    - MAE, MSE, RMSE: over all values of all images, in -1..1, not rounded, **times 100**.

    The paper's columns "MSE" are RMSE: the official code prints the root of the mean squared error
    of images in -1..1 (and its Table 4 has MAE 0.1123 beside "MSE" 0.2509, which no mean of squares
    of such errors can be: they are at most 2, so MSE <= 2 MAE).

    It measures the ``pred`` of all outputs of a task and its target (:mod:`mmcen.outputs`),
    ``(C, H, W)`` in 0..255. For FID and KID, images are rounded to uint8 as in a file. The
    extractor runs once on a real image for all streams.

    Args:
        metrics: Metrics of each task, ``dict(rgb=['FID', 'KID'], depth_zbuffer=['MAE', 'MSE'])``.
        streams: Whether to measure every stream, too.
        extractor: File of the Inception weights, needed for FID and KID only, see
            :class:`Inception`. Or your own module ``(B, 3, H, W)`` uint8 to ``(B, F)``, whose
            values cannot be compared with published ones.
        kid_subsets: Number of subsets of KID, 50 as in the official code.
        kid_subset_size: Number of images in a subset, 1000 as in the official code. If there are
            fewer images, such as the paper's 500, all of them form one subset; the log and the file
            state this.
        out_file: JSON file for the values of the last evaluation with images, extractor, hash,
            resize and subsets. Default: ``translation_metric.json`` beside the run's log, none
            without a log.
        kwargs: Arguments of mmengine's BaseMetric.

    Raises:
        ValueError: If there is nothing to measure, a metric is unknown, FID or KID have no
            extractor, or subsets are too small. Later, if a task or its target is missing, shapes
            differ, or there are fewer than 2 images for FID or KID.
        FileNotFoundError: If the file of the extractor does not exist.
        ImportError: If torchmetrics or torch-fidelity is not installed.
    """

    def __init__(
        self,
        metrics: Mapping[str, Sequence[str]],
        streams: bool = True,
        extractor: str | Path | nn.Module | None = None,
        kid_subsets: int = 50,
        kid_subset_size: int = 1000,
        out_file: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _check(metrics, kid_subsets, kid_subset_size)
        self.metrics = {task: tuple(names) for task, names in metrics.items()}
        self.asked = {name for names in self.metrics.values() for name in names}
        self.streams = streams
        self.kid_subsets, self.kid_subset_size = kid_subsets, kid_subset_size
        self.out_file = out_file
        self.extractor: nn.Module | None = None
        if not self.asked.isdisjoint(FEATURE_METRICS):
            self.extractor = build_extractor(extractor)
        self._said: set[str] = set()

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Add one result for each sample; samples that a sampler repeats count once."""
        for sample in data_samples:
            self.results.append({task: self._measure(task, sample) for task in self.metrics})

    @torch.no_grad()
    def _measure(self, task: str, sample: dict) -> dict[str, dict]:
        """Return errors and features of one sample by output; ``''`` is the ensemble."""
        images = _images(task, sample, self.streams)
        measured: dict[str, dict] = {view: {} for view in images}
        if not set(self.metrics[task]).isdisjoint(PIXEL_METRICS):
            for view in images.keys() - {'gt'}:
                measured[view] = pixel_errors(images[view], images['gt'])
        if not set(self.metrics[task]).isdisjoint(FEATURE_METRICS):
            for view, features in zip(images, self._features(task, images), strict=True):
                measured[view]['features'] = features
        return measured

    def _features(self, task: str, images: dict[str, Tensor]) -> Tensor:
        """Return features of all images of one sample, ``(N, F)``."""
        batch = torch.stack(list(images.values()))  # (N, C, H, W)
        if batch.shape[1] != 3:
            raise ValueError(
                f"task '{task}' has {batch.shape[1]} channels, FID and KID take images of 3: "
                'encode it by EncodeDomains, or measure it by MAE'
            )
        assert self.extractor is not None
        self.extractor.to(batch.device)
        return self.extractor(batch.round().clamp(0, 255).to(torch.uint8)).cpu()

    def compute_metrics(self, results: list[dict[str, dict]]) -> dict[str, float]:
        values: dict[str, float] = {}
        for task, names in self.metrics.items():
            own = [result[task] for result in results]
            for view in dict.fromkeys(name for one in own for name in one if name != 'gt'):
                # in a frame without a modality its stream has no output
                real = [one['gt'] for one in own if view in one]
                fake = [one[view] for one in own if view in one]
                prefix = f'{task}/{view}/' if view else f'{task}/'
                for name, value in self._scores(names, real, fake).items():
                    values[prefix + name] = value
            for name in names:
                if name in FEATURE_METRICS:
                    values[f'{task}/{name}_images'] = len(results)
        self._report(values, len(results))
        return values

    def _scores(self, names: Sequence[str], real: list[dict], fake: list[dict]) -> dict[str, float]:
        """Compute the named metrics of one output."""
        scores: dict[str, float] = {}
        if not set(names).isdisjoint(PIXEL_METRICS):
            weights = [own['values'] for own in fake]
            scores['MAE'] = 100 * np.average([own['MAE'] for own in fake], weights=weights)
            mse = np.average([own['MSE'] for own in fake], weights=weights)
            scores['MSE'], scores['RMSE'] = 100 * mse, 100 * math.sqrt(mse)
        if not set(names).isdisjoint(FEATURE_METRICS):
            if len(real) < 2:
                raise ValueError(f'FID and KID need 2 images or more, got {len(real)}')
            x, y = (torch.stack([own['features'] for own in side]) for side in (real, fake))
            if 'FID' in names:
                scores['FID'] = frechet_distance(x, y)
            if 'KID' in names:
                scores['KID'] = 100 * kernel_distance(x, y, *self._subsets(len(real)))
        return {name: float(scores[name]) for name in names}

    def _subsets(self, images: int) -> tuple[int, int]:
        """Return number and size of KID's subsets; one subset if it would hold all images."""
        if images <= self.kid_subset_size:
            return 1, images
        return self.kid_subsets, self.kid_subset_size

    def _report(self, values: dict[str, float], images: int) -> None:
        """Write values and settings to the log and to a file."""
        record: dict[str, Any] = {
            'metrics': values,
            'images': images,
            'scale': 'KID, MAE, MSE, RMSE times 100; MAE, MSE, RMSE of images in -1..1',
        }
        if self.extractor is not None:
            record['extractor'] = provenance(self.extractor)
        if 'KID' in self.asked:
            subsets, size = self._subsets(images)
            record['KID'] = {'subsets': subsets, 'subset_size': size}
            if images < self.kid_subset_size:
                self._warn_once(
                    f'KID of {images} images takes all of them once in place of '
                    f'{self.kid_subsets} subsets of {self.kid_subset_size}'
                )
        if 'FID' in self.asked and images < ENOUGH:
            self._warn_once(
                f'FID of {images} images, fewer than {ENOUGH}, depends on their number: compare it '
                'with FIDs of as many images only, or use KID'
            )
        settings = {key: value for key, value in record.items() if key != 'metrics'}
        print_log(f'TranslationMetric: {json.dumps(settings)}', 'current')
        self._write(record)

    def _write(self, record: dict[str, Any]) -> None:
        log_file = MMLogger.get_current_instance().log_file
        if self.out_file is None and log_file is None:
            return
        path = Path(self.out_file or Path(log_file).with_name('translation_metric.json'))
        with whole_file(path) as part:
            part.write_text(json.dumps(record, indent=2) + '\n', encoding='utf-8')

    def _warn_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            print_log(message, 'current', logging.WARNING)


@EVALUATOR.register_module(name='TranslationMetric')
def _alone(**cfg: Any) -> Evaluator:
    """Build an evaluator of ``dict(type='TranslationMetric', metrics=...)`` without a list.

    mmengine takes such a dict for an evaluator because of its ``metrics``.
    """
    return Evaluator([dict(type='TranslationMetric', **cfg)])


def _check(metrics: Mapping[str, Sequence[str]], kid_subsets: int, kid_subset_size: int) -> None:
    known = (*FEATURE_METRICS, *PIXEL_METRICS)
    if not isinstance(metrics, Mapping) or not metrics:
        raise ValueError(f'nothing to measure, metrics={metrics!r}: give dict(rgb=["FID", "KID"])')
    for task, names in metrics.items():
        if isinstance(names, str) or not names or any(name not in known for name in names):
            raise ValueError(f"metrics of '{task}' must be a list out of {known}, got {names!r}")
    if kid_subsets < 1 or kid_subset_size < 2:
        raise ValueError(
            f'KID needs 1 subset or more of 2 images or more, got {kid_subsets} of '
            f'{kid_subset_size}'
        )
    if find_spec('torchmetrics') is None:
        raise ImportError(
            'TranslationMetric needs torchmetrics: pip install -r requirements/translation.txt'
        )


def _images(task: str, sample: dict, streams: bool) -> dict[str, Tensor]:
    """Return images by name, ``(C, H, W)`` each: ``gt``, ``''`` for the ensemble, the streams."""
    outputs, targets = sample.get('outputs', {}), sample.get('targets', {})
    if 'pred' not in outputs.get(task, {}).get(ENSEMBLE, {}):
        raise ValueError(
            f"task '{task}' predicts no image, the sample has tasks {list(outputs)}: correct "
            'metrics, and measure classes by StreamIoUMetric'
        )
    if task not in targets:
        raise ValueError(
            f"task '{task}' has no target, only {list(targets)} have: add it to the dataset's "
            'modalities'
        )
    own = outputs[task]
    images = {'gt': targets[task], '': own[ENSEMBLE]['pred']}
    if streams:
        images.update({name: own[name]['pred'] for name in own if name != ENSEMBLE})
    for name, image in images.items():
        if image.shape != images['gt'].shape:
            raise ValueError(
                f"task '{task}': prediction {tuple(image.shape)} of '{name or 'ensemble'}' and "
                f'ground truth {tuple(images["gt"].shape)} differ in shape'
            )
    return images
