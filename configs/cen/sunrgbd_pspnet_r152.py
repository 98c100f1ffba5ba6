# Table 3: CEN, PSPNet (ResNet152) on SUN RGB-D. Published: 51.1 mIoU multi-scale.
_base_ = [
    '../_base_/models/cen_pspnet_r152.py',
    '../_base_/datasets/sunrgbd.py',
    '../_base_/schedules/cen_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(modalities={{_base_.modalities}}),
    decode_head=dict(num_classes=37),
    auxiliary_head=dict(num_classes=37),
)
