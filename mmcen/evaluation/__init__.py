from .stream_iou_metric import StreamIoUMetric
from .translation_metric import TranslationMetric

__all__ = ['StreamIoUMetric', 'TranslationMetric']
