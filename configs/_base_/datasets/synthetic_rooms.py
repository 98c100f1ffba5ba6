# Rendered rooms: nothing to download. Frames are rendered once and kept in memory (no workers).
modalities = [
    dict(name='rgb', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    dict(name='depth', mean=[0.0], std=[5.0]),  # metres
]
dataset = dict(type='SyntheticRooms', modalities=modalities, size=(96, 128))
train_pipeline = [
    dict(type='ForEachModality', transforms=[dict(type='RandomFlip', prob=0.5)]),
    dict(type='PackModalities'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(split='train', length=400, pipeline=train_pipeline, **dataset),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(split='val', length=100, pipeline=[dict(type='PackModalities')], **dataset),
)
test_dataloader = val_dataloader
# the label is not transformed, like the frame of the predictions
flips = [
    dict(type='ForEachModality', transforms=[dict(type='RandomFlip', prob=prob)], label=False)
    for prob in (0.0, 1.0)
]
tta_pipeline = [dict(type='TestTimeAug', transforms=[flips, [dict(type='PackModalities')]])]
val_evaluator = dict(type='StreamIoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
