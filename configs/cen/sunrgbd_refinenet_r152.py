# Table 3: CEN, RefineNet (ResNet152) on SUN RGB-D. Published: 50.0 mIoU single-scale, 50.8
# multi-scale.
_base_ = [
    '../_base_/models/cen_refinenet_r101.py',
    '../_base_/datasets/sunrgbd.py',
    '../_base_/schedules/cen_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(modalities={{_base_.modalities}}),
    backbone=dict(
        depth=152, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet152')
    ),
    decode_head=dict(num_classes=37),
)
