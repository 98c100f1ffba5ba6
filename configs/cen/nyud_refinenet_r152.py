# Table 3: 51.6 mIoU single-scale, 52.2 multi-scale; 450 epochs, rates stepped every 150.
_base_ = 'nyud_refinenet_r101.py'
model = dict(
    backbone=dict(depth=152, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet152'))
)
param_scheduler = dict(milestones=[150, 300])
train_cfg = dict(max_epochs=450)
