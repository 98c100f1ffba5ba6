# Domains derived from NYUv2 by mmcen convert-data derive-domains, for two CPU cores, half
# of pix2pix's resolution: resize 144, crop 128, flip.
_base_ = './taskonomy.py'
load = [dict(type='LoadModalities'), dict(type='LoadLabel', optional=True)]
pack = [dict(type='EncodeDomains'), dict(type='PackModalities')]
train_pipeline = [
    *load,
    dict(
        type='ForEachModality',
        transforms=[dict(type='Resize', scale=(144, 144))],
    ),
    dict(
        type='ForEachModality',
        transforms=[
            dict(type='RandomCrop', crop_size=(128, 128)),
            dict(type='RandomFlip', prob=0.5),
        ],
    ),
    *pack,
]
test_pipeline = [
    *load,
    dict(
        type='ForEachModality',
        transforms=[dict(type='Resize', scale=(128, 128))],
    ),
    *pack,
]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    drop_last=True,
    dataset=dict(folder='nyuv2_domains', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(folder='nyuv2_domains', ann_file='splits/test.txt', pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(extractor=None)
test_evaluator = val_evaluator
