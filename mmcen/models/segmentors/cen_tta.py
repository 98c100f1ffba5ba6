"""Test-time augmentation that merges each stream's predictions as well as the ensemble's."""

from typing import Any

from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmseg.models import SegTTAModel
from mmseg.structures import SegDataSample

from ...outputs import ENSEMBLE, SEGMENTATION, fields_of, outputs_of


@MODELS.register_module()
class CENSegTTAModel(SegTTAModel):
    """Merge predictions of scales and flips as mmseg does, for the ensemble and every stream.

    Merging needs all logits: ``test_cfg.logits`` of the module is set to True.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.module.test_cfg = ConfigDict({**(self.module.test_cfg or {}), 'logits': True})

    def merge_preds(self, data_samples_list: list[list[SegDataSample]]) -> list[SegDataSample]:
        """Return one merged sample for each frame."""
        names = data_samples_list[0][0].outputs.get(SEGMENTATION).keys()
        merged = {
            name: super(CENSegTTAModel, self).merge_preds(
                [[_view(sample, name) for sample in samples] for samples in data_samples_list]
            )
            for name in names
            if name != ENSEMBLE
        }
        predictions = super().merge_preds(data_samples_list)
        for i, prediction in enumerate(predictions):
            samples = {ENSEMBLE: prediction, **{name: of[i] for name, of in merged.items()}}
            own = {name: fields_of(sample, ['pred_sem_seg']) for name, sample in samples.items()}
            prediction.set_data({'outputs': outputs_of({SEGMENTATION: own})})
        return predictions


def _view(sample: SegDataSample, name: str) -> SegDataSample:
    """One of a sample's outputs as mmseg's merging takes it."""
    logits = sample.outputs.get(SEGMENTATION).get(name).seg_logits
    return SegDataSample(metainfo=sample.metainfo, seg_logits=logits)
