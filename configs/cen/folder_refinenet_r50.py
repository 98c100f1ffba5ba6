# Your own folders: copy this file and edit the lines above the rule (docs/quickstart.md).
_base_ = [
    '../_base_/models/cen_refinenet_r101.py',
    '../_base_/schedules/cen_300e.py',
    '../_base_/default_runtime.py',
]
data_root = 'data/mine'
# A frame's files are data_root/dir/FRAME+suffix; the lists name frames, one a line.
train_list, val_list = 'splits/train.txt', 'splits/val.txt'
classes = ('floor', 'wall', 'object')  # label files hold their numbers from 0, and 255 for void
labels = dict(dir='labels', suffix='.png')
# An entry states files, unit, mean and deviation of the channels, and interpolation of a modality.
# The order is the order of the streams. Add or remove entries for other modalities.
modalities = [
    dict(
        name='rgb',
        dir='rgb',
        suffix='.jpg',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        interpolation='bicubic',
    ),
    dict(name='depth', dir='depth', suffix='.png', unit='mm', mean=[0.0], std=[5.0]),  # metres
]
crop_size = (480, 480)
# ------------------------------------------------------------------------------------------------
dataset = dict(
    type='RGBDFolderDataset',
    data_root=data_root,
    modalities=modalities,
    labels=labels,
    metainfo=dict(classes=classes),
)
train_pipeline = [
    dict(type='LoadModalities'),
    dict(type='LoadLabel'),
    dict(
        type='ForEachModality',
        transforms=[
            dict(
                type='RandomScaleCrop',  # by 0.5..2
                crop_size=crop_size,
                min_side=int(0.7 * min(crop_size)),
            ),
            dict(type='RandomFlip', prob=0.5),
        ],
    ),
    dict(type='PackModalities'),  # what is smaller than the crop is padded by the preprocessor
]
test_pipeline = [
    dict(type='LoadModalities'),
    dict(type='LoadLabel', optional=True),
    dict(type='PackModalities'),
]
train_dataloader = dict(
    batch_size=6,
    num_workers=4,
    worker_init_fn=dict(type='seed_worker'),
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(ann_file=train_list, pipeline=train_pipeline, **dataset),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file=val_list, pipeline=test_pipeline, **dataset),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='StreamIoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
model = dict(
    data_preprocessor=dict(modalities=modalities, size=crop_size),
    backbone=dict(depth=50, init_cfg=dict(checkpoint='torchvision://resnet50')),
    decode_head=dict(num_classes=len(classes)),
)
