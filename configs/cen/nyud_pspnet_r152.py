# Table 3: CEN, PSPNet (ResNet152) on NYUv2. Published: 52.5 mIoU multi-scale.
_base_ = [
    '../_base_/models/cen_pspnet_r152.py',
    '../_base_/datasets/nyuv2.py',
    '../_base_/schedules/cen_300e.py',
    '../_base_/default_runtime.py',
]
model = dict(data_preprocessor=dict(modalities={{_base_.modalities}}))
param_scheduler = dict(milestones=[150, 300])
train_cfg = dict(max_epochs=450)
