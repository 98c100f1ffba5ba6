# Rendered rooms with all their domains: nothing to download. Frames are rendered once and kept.
dataset = dict(type='SyntheticRooms', size=(64, 64))
pack = [dict(type='EncodeDomains'), dict(type='PackModalities')]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        split='train',
        length=400,
        pipeline=[
            dict(type='ForEachModality', transforms=[dict(type='RandomFlip', prob=0.5)]),
            *pack,
        ],
        **dataset,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(split='val', length=100, pipeline=pack, **dataset),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='TranslationMetric')
test_evaluator = val_evaluator
