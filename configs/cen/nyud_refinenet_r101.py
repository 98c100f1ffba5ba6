# Table 3: CEN, RefineNet (ResNet101) on NYUv2. Published: 51.1 mIoU single-scale, 51.7 multi-scale.
_base_ = [
    '../_base_/models/cen_refinenet_r101.py',
    '../_base_/datasets/nyuv2.py',
    '../_base_/schedules/cen_300e.py',
    '../_base_/default_runtime.py',
]
model = dict(data_preprocessor=dict(modalities={{_base_.modalities}}))
