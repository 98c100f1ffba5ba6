# NJUD and NLPR to train, 1,485 and 700 frames, and the four test sets of Table 14. Frames are
# resized to 352x352 as in reference [82]; predictions are measured at the size of the masks.
modalities = [
    dict(name='rgb', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    dict(name='depth', mean=[0.5], std=[0.25]),  # relative: 1 is the nearest pixel of a frame
]
resize = dict(type='ForEachModality', transforms=[dict(type='Resize', scale=(352, 352))])
load = [dict(type='LoadModalities'), dict(type='RelativeDepth')]
train_pipeline = [
    *load,
    dict(type='LoadPseudoLabel'),
    resize,
    dict(type='ForEachModality', transforms=[dict(type='RandomFlip', prob=0.5)]),
    dict(type='PackModalities'),
]
update_pipeline = [*load, resize, dict(type='PackModalities')]
test_pipeline = [
    *load,
    resize,
    dict(type='LoadMask'),
    dict(type='PackModalities', meta_keys=('img_path', 'ori_shape', 'img_shape', 'dataset')),
]
# pseudo labels: by mmcen convert-data saliency, or any other method's in its folder
train_set = dict(
    type='SaliencyDataset',
    modalities=modalities,
    split='train',
    masks=False,
    pseudo='pseudo',
    pipeline=train_pipeline,
    lazy_init=True,  # ConcatDataset does it
)
test_set = dict(
    type='SaliencyDataset',
    modalities=modalities,
    split='test',
    pipeline=test_pipeline,
    lazy_init=True,
)
train_dataloader = dict(
    batch_size=10,
    num_workers=4,
    persistent_workers=False,  # new workers load the labels of the last update
    worker_init_fn=dict(type='seed_worker'),
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='ConcatDataset',
        datasets=[dict(name='njud', **train_set), dict(name='nlpr', **train_set)],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(name='njud', **test_set),
            dict(name='nlpr', **test_set),
            dict(name='stere', **test_set),
            dict(name='dutlf', **test_set),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='SaliencyMetric', stretch=True)  # the code of [82] stretches each map
test_evaluator = val_evaluator
del load, resize, train_set, test_set  # logged as parts of the data sets, once is enough
