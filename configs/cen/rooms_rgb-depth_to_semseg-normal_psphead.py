# Two tasks from two modalities with a backbone and decode heads of mmsegmentation: the heads run in
# lock step and exchange; classes by cross entropy, normals by L1. Without mmagic.
_base_ = [
    '../_base_/datasets/rooms_domains.py',
    '../_base_/schedules/small_from_scratch.py',
    '../_base_/default_runtime.py',
]
tasks = [
    dict(
        name='segment_semantic',
        inputs=['rgb', 'depth_zbuffer'],
        head=dict(type='ClassHead', num_classes=10),
    ),
    dict(name='normal', inputs=['rgb', 'depth_zbuffer']),
]
domains = ['rgb', 'depth_zbuffer', 'normal']
model = dict(
    type='CENMultiTask',
    tasks=tasks,
    network=dict(
        type='CENDenseNetwork',
        backbone=dict(
            type='CENResNet',
            depth=18,
            base_channels=32,
            strides=(1, 2, 1, 1),
            dilations=(1, 1, 2, 4),
        ),
        decode_head=dict(
            type='PSPHead',
            in_channels=256,
            in_index=3,
            channels=64,
            norm_cfg=dict(type='BN'),
        ),
    ),
)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='TranslationMetric', metrics=dict(normal=['MAE', 'RMSE'])),
    dict(type='StreamIoUMetric', task='segment_semantic'),
]
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='segment_semantic/mIoU'))
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='SparsityHook', coefficient=5e-4),
    dict(type='ExchangeMonitorHook', interval=25),
    dict(type='LastAndBestHook', key='segment_semantic/mIoU'),
    dict(type='SheetHook'),
]
