"""Mean IoU, mean accuracy and pixel accuracy of the ensemble and of every stream, by name."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import MMLogger, print_log
from mmengine.registry import METRICS
from mmseg.evaluation import IoUMetric
from torch import Tensor

from ..outputs import ENSEMBLE, SEGMENTATION


@METRICS.register_module()
class StreamIoUMetric(IoUMetric):
    """IoUMetric of mmseg for the ensemble (``mIoU``) and each stream (``rgb/mIoU``).

    It measures the ``outputs`` of samples (:mod:`mmcen.outputs`), and stock models as IoUMetric
    does. Files in ``output_dir`` are the predictions of the ensemble.

    Args:
        task: Task of a multi-task model whose classes are measured; metrics are named
            ``<task>/mIoU``, ``<task>/rgb/mIoU``, ...
        kwargs: Arguments of IoUMetric.

    Raises:
        ValueError: If a sample has no such task.
    """

    output_dir: str | None

    def __init__(self, task: str | None = None, **kwargs: Any) -> None:
        super().__init__(**({'prefix': task} | kwargs))
        self.task = task

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            output_dir = self.output_dir
            measured = {}
            for prefix, output in self._outputs(sample).items():
                super().process(data_batch, [{**sample, **output}])
                if not self.format_only:
                    measured[prefix] = self.results.pop()
                self.output_dir = None  # only the ensemble is written
            self.output_dir = output_dir
            self.results.append(measured)

    def _outputs(self, sample: dict) -> dict[str, dict]:
        """Return the outputs to measure by prefix of their metrics, the ensemble first."""
        tasks = sample.get('outputs', {})
        if self.task is None and not tasks:
            return {'': {}}
        task = self.task or SEGMENTATION
        own = tasks.get(task, {})
        if 'pred_sem_seg' not in own.get(ENSEMBLE, {}):
            raise ValueError(
                f"task '{task}' predicts no classes, the sample has tasks {list(tasks)}: name one "
                'with a ClassHead by task='
            )
        streams = [name for name in own if name != ENSEMBLE and not self.format_only]
        return {'': own[ENSEMBLE], **{f'{name}/': own[name] for name in streams}}

    @staticmethod
    def intersect_and_union(
        pred_label: Tensor, label: Tensor, num_classes: int, ignore_index: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute the counts of IoUMetric by one histogram of pairs of labels.

        Args:
            pred_label: Predicted labels ``(H, W)``.
            label: True labels ``(H, W)``.
            num_classes: Number of classes K; other labels are not counted.
            ignore_index: Label whose pixels are not counted.

        Returns:
            Pixels by class, float32 ``(K,)``: intersection, union, predicted, labelled.
        """
        if num_classes == 1:  # mmseg then counts all labels as the class
            return IoUMetric.intersect_and_union(pred_label, label, num_classes, ignore_index)
        bins = num_classes + 2  # the first and the last one are other labels
        known = label != ignore_index
        pairs = _bin(label, num_classes).mul_(bins).add_(_bin(pred_label, num_classes)).mul_(known)
        counts = torch.bincount(pairs.flatten(), minlength=bins**2).view(bins, bins).cpu()
        predicted, labelled, both = (
            count[1:-1].float() for count in (counts.sum(0), counts.sum(1), counts.diagonal())
        )
        return both, predicted + labelled - both, predicted, labelled

    def compute_metrics(self, results: list[dict[str, tuple]]) -> dict[str, float]:
        logger = MMLogger.get_current_instance()
        metrics: dict[str, float] = {}
        # in a frame without a modality its stream has no output
        for prefix in dict.fromkeys(name for measured in results for name in measured) or ['']:
            there = [measured[prefix] for measured in results if prefix in measured]
            if prefix:
                some = (
                    f' {len(there)} of {len(results)} frames' if len(there) < len(results) else ''
                )
                print_log(f"stream '{prefix[:-1]}':{some}", logger)
            own = super().compute_metrics(there)
            metrics.update({prefix + key: value for key, value in own.items()})
        return metrics


def _bin(labels: Tensor, num_classes: int) -> Tensor:
    """Map labels 0..K-1 to bins 1..K, lower ones to 0 and higher ones to K+1."""
    return labels.long().clamp(-1, num_classes).add_(1)
