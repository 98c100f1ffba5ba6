# Fig. 14: CEN, PSPNet (ResNet101) on Cityscapes, tested at a single scale. The paper shows
# predictions without a score, and does not state schedule, batch, crop and scale of the disparity.
# These are our choices: rates, batch and lambda of the paper's other segmentation configs; twice
# the epochs of SUN RGB-D, for about as many steps (59,500 and 52,850); mmsegmentation's crop;
# disparity divided by 64 pixels, so that it is within 0..2 like NYUv2's depth.
_base_ = [
    '../_base_/models/cen_pspnet_r152.py',
    '../_base_/datasets/cityscapes_rgbd.py',
    '../_base_/schedules/cen_60e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(modalities={{_base_.modalities}}, size=(512, 1024)),
    backbone=dict(
        depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')
    ),
    decode_head=dict(num_classes=19),
    auxiliary_head=dict(num_classes=19),
)
param_scheduler = dict(milestones=[40, 80])
train_cfg = dict(max_epochs=120)
