_base_ = 'nyud_refinenet_r101.py'
model = dict(
    backbone=dict(depth=50, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'))
)
