"""Cityscapes, colour and disparity: scale 0.5..2, crop 512x1024, flip, as mmsegmentation has it."""

_base_ = 'nyudv2.py'
dataset_type = 'CityscapesRGBDDataset'
interpolation = dict(rgb='bicubic', depth='nearest')
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
        interpolation=interpolation,
    ),
    dict(type='PackModalities'),
]
train_dataloader = dict(dataset=dict(type=dataset_type, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type=dataset_type, split='val'))
test_dataloader = val_dataloader
