"""Test-time augmentation that merges each stream's predictions as well as the ensemble's."""

from typing import Any

from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement
from mmseg.models import SegTTAModel
from mmseg.structures import SegDataSample


@MODELS.register_module()
class CENSegTTAModel(SegTTAModel):
    """mmseg's merging (mean of softmax over scales and flips), applied to the ensemble and to every
    stream.

    Merging needs all logits: ``test_cfg.logits`` of the module is set to True.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.module.test_cfg = ConfigDict({**(self.module.test_cfg or {}), 'logits': True})

    def merge_preds(self, data_samples_list: list[list[SegDataSample]]) -> list[SegDataSample]:
        names = data_samples_list[0][0].get('streams', BaseDataElement()).keys()
        merged = {
            name: super(CENSegTTAModel, self).merge_preds(
                [[sample.streams.get(name) for sample in samples] for samples in data_samples_list]
            )
            for name in names
        }
        predictions = super().merge_preds(data_samples_list)
        for i, prediction in enumerate(predictions):
            if merged:
                streams = BaseDataElement(**{name: preds[i] for name, preds in merged.items()})
                prediction.set_data({'streams': streams})
        return predictions
