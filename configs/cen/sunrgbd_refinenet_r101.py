# Table 3: CEN, RefineNet (ResNet101) on SUN RGB-D. Published: 49.6 mIoU single-scale, 50.2
# multi-scale.
_base_ = [
    '../_base_/models/cen_refinenet_r101.py',
    '../_base_/datasets/sunrgbd.py',
    '../_base_/schedules/cen_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(modalities={{_base_.modalities}}), decode_head=dict(num_classes=37)
)
