from .saliency_metric import SaliencyMetric
from .stream_iou_metric import StreamIoUMetric
from .translation_metric import TranslationMetric

__all__ = ['SaliencyMetric', 'StreamIoUMetric', 'TranslationMetric']
