# Paper: 1,000 frames to train and 500 to validate, at 256x256; resize 286, crop 256, flip, batch 1.
# An experiment sets its domains by train_dataloader.dataset.modalities and val_...
size = (256, 256)
train_pipeline = [
    dict(type='LoadModalities'),
    dict(type='LoadLabel', optional=True),
    dict(
        type='ForEachModality',
        transforms=[dict(type='Resize', scale=(286, 286))],
    ),
    dict(
        type='ForEachModality',
        transforms=[
            dict(type='RandomCrop', crop_size=size),
            dict(type='RandomFlip', prob=0.5),
        ],
    ),
    dict(type='EncodeDomains'),
    dict(type='PackModalities'),
]
test_pipeline = [
    dict(type='LoadModalities'),
    dict(type='LoadLabel', optional=True),
    dict(
        type='ForEachModality',
        transforms=[dict(type='Resize', scale=size)],
    ),
    dict(type='EncodeDomains'),
    dict(type='PackModalities'),
]
dataset = dict(type='TaskonomyDataset')
train_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=False,
    worker_init_fn=dict(type='seed_worker'),  # a resumed training sees the same augmentation
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(ann_file='splits/train.txt', pipeline=train_pipeline, **dataset),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file='splits/val.txt', pipeline=test_pipeline, **dataset),
)
test_dataloader = val_dataloader
# FID and KID need the Inception weights from a file: docs/tasks.md
val_evaluator = dict(
    type='TranslationMetric', extractor='checkpoints/weights-inception-2015-12-05-6726825d.pth'
)
test_evaluator = val_evaluator
