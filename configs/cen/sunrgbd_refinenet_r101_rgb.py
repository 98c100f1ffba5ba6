# Table 3: colour alone, RefineNet (ResNet101) on SUN RGB-D. 46.3 mIoU, as others published it.
_base_ = [
    '../_base_/models/cen_refinenet_r101.py',
    '../_base_/datasets/sunrgbd.py',
    '../_base_/schedules/cen_60e.py',
    '../_base_/default_runtime.py',
]
modalities = [dict(name='rgb', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])]
model = dict(data_preprocessor=dict(modalities=modalities), decode_head=dict(num_classes=37))
