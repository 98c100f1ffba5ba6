"""Cityscapes, colour and disparity: scale 0.5..2, crop 512x1024, flip, as mmsegmentation has it."""

_base_ = 'nyuv2.py'
dataset_type = 'CityscapesRGBDDataset'
modalities = [
    dict(
        name='rgb',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        interpolation='bicubic',
    ),
    dict(
        name='depth', mean=[0.0], std=[64.0]
    ),  # disparity in pixels: within 0..2, as NYUv2's depth
]
crop_size = (512, 1024)
train_pipeline = [
    dict(type='LoadModalities'),
    dict(type='LoadLabel'),
    # at the smallest scale a frame is as large as the crop, so nothing is padded
    dict(
        type='ForEachModality',
        transforms=[
            dict(
                type='RandomScaleCrop',
                crop_size=crop_size,
                ratio_range=(0.5, 2.0),
                min_side=512,
                cat_max_ratio=0.75,
            ),
            dict(type='RandomFlip', prob=0.5),
        ],
    ),
    dict(type='PackModalities'),
]
train_dataloader = dict(
    dataset=dict(type=dataset_type, modalities=modalities, pipeline=train_pipeline)
)
val_dataloader = dict(dataset=dict(type=dataset_type, modalities=modalities, split='val'))
test_dataloader = val_dataloader
