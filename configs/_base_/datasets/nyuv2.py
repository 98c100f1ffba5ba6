"""NYUv2, colour and depth: augmentation of the official code (scale 0.5..2, crop 500, flip)."""

# The data set loads these; the model takes those that its data preprocessor lists, in its order.
modalities = [
    dict(
        name='rgb',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        interpolation='bicubic',
    ),
    dict(name='depth', mean=[0.0], std=[5.0]),  # metres; official: depth in mm / 5000
]
dataset_type = 'NYUv2Dataset'
crop_size = (500, 500)

train_pipeline = [
    dict(type='LoadModalities'),
    dict(type='LoadLabel'),
    dict(
        type='ForEachModality',
        transforms=[
            # The official code resizes everything, pads colour with its mean and labels with 255,
            # and then crops. This gives the same image for less work:
            dict(type='RandomScaleCrop', crop_size=crop_size, ratio_range=(0.5, 2.0), min_side=350),
            dict(type='Pad', size=crop_size),
            dict(type='RandomFlip', prob=0.5),
        ],
    ),
    dict(type='PackModalities'),
]
test_pipeline = [
    dict(type='LoadModalities'),
    dict(type='LoadLabel', optional=True),
    dict(type='PackModalities'),
]
tta_pipeline = [
    dict(type='LoadModalities'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(
                    type='ForEachModality',
                    transforms=[dict(type='Resize', scale_factor=ratio, keep_ratio=True)],
                )
                for ratio in (0.75, 1.0, 1.25)
            ],
            [
                dict(type='ForEachModality', transforms=[dict(type='RandomFlip', prob=prob)])
                for prob in (0.0, 1.0)
            ],
            # Loaded last: predictions are merged and compared in the original frame.
            [dict(type='LoadLabel', optional=True)],
            [dict(type='PackModalities')],
        ],
    ),
]

train_dataloader = dict(
    batch_size=6,
    num_workers=4,
    persistent_workers=False,
    worker_init_fn=dict(type='seed_worker'),  # a resumed training sees the same augmentation
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type=dataset_type, modalities=modalities, split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, modalities=modalities, split='test', pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='StreamIoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
