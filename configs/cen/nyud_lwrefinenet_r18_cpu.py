# Real NYUv2 without a GPU and without ImageNet weights: a quarter of the resolution, a narrow
# ResNet-18 from scratch; half an hour on 2 cores.
_base_ = [
    '../_base_/models/cen_refinenet_r101.py',
    '../_base_/datasets/nyuv2.py',
    '../_base_/schedules/small_from_scratch.py',
    '../_base_/default_runtime.py',
]
modalities = [
    dict(
        name='rgb',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        interpolation='area',
    ),
    dict(name='depth', mean=[0.0], std=[5.0]),  # metres
]
shrink = dict(type='ForEachModality', transforms=[dict(type='Resize', scale=(160, 120))])
train_pipeline = [
    dict(type='LoadModalities'),
    dict(type='LoadLabel'),
    dict(
        type='ForEachModality',
        transforms=[
            dict(type='RandomResize', scale=(160, 120), ratio_range=(1.0, 1.6), keep_ratio=True)
        ],
    ),
    dict(
        type='ForEachModality',
        transforms=[
            dict(type='RandomCrop', crop_size=(120, 160)),
            dict(type='RandomFlip', prob=0.5),
        ],
    ),
    dict(type='PackModalities'),
]
# labels are loaded after the geometry: scores are at the full 480x640
test_pipeline = [
    dict(type='LoadModalities'),
    shrink,
    dict(type='LoadLabel', optional=True),
    dict(type='PackModalities'),
]
train_dataloader = dict(
    batch_size=8, num_workers=1, dataset=dict(modalities=modalities, pipeline=train_pipeline)
)
val_dataloader = dict(num_workers=1, dataset=dict(modalities=modalities, pipeline=test_pipeline))
test_dataloader = val_dataloader
model = dict(
    data_preprocessor=dict(modalities=modalities, size=None),
    backbone=dict(depth=18, base_channels=32, norm_eval=False, init_cfg=None),
    decode_head=dict(
        in_channels=[32, 64, 128, 256],
        channels=64,
        light_weight=True,
        dropout_ratio=0.1,
    ),
)
# several times the demo's steps, so a smaller learning rate for the scaling factors
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            '.norm.weight': dict(_delete_=True, lr_mult=1.0, decay_mult=0.0),
        }
    )
)
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='SparsityHook', coefficient=2e-3),
    dict(type='ExchangeMonitorHook'),
    dict(type='LastAndBestHook'),
    dict(type='SheetHook'),
]
train_cfg = dict(max_epochs=20, val_interval=10)
