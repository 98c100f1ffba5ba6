# Rendered rooms, in which boxes, balls and pillars are salient. Training uses no masks: its labels
# are computed from the frames. In test, `pseudo/` metrics measure these labels.
relative = dict(type='RelativeDepth', near='low', missing=0)  # metres, 0 is a hole
modalities = [
    dict(name='rgb', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    dict(name='depth', mean=[0.5], std=[0.25]),  # relative: 1 is the nearest pixel of a frame
]
dataset = dict(type='SalientRooms', modalities=modalities, size=(96, 128))
train_pipeline = [
    relative,
    dict(type='LoadPseudoLabel'),
    dict(type='ForEachModality', transforms=[dict(type='RandomFlip', prob=0.5)]),
    dict(type='PackModalities'),
]
update_pipeline = [relative, dict(type='PackModalities')]
test_pipeline = [
    relative,
    dict(type='LoadPseudoLabel', key='pseudo_label'),
    dict(type='PackModalities', meta_keys=('img_path', 'ori_shape', 'img_shape', 'pseudo_label')),
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
    dataset=dict(split='val', length=100, pipeline=test_pipeline, **dataset),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='SaliencyMetric')
test_evaluator = val_evaluator
