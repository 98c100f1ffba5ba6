# Official code, R101 on NYUv2: SGD, 300 epochs, rates by part (encoder, decoder) stepped every 100.
lr = dict(encoder=5e-4, decoder=3e-3)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=lr['encoder'], momentum=0.9, weight_decay=1e-5),
    paramwise_cfg=dict(
        custom_keys={
            part: dict(lr_mult=lr['decoder'] / lr['encoder'])
            for part in ('decode_head', 'auxiliary_head', 'ensemble')
        }
    ),
)
param_scheduler = dict(
    type='ListedLR',
    milestones=[100, 200],
    rates=[[5e-4, 2.5e-4, 1e-4], [3e-3, 1.5e-3, 7e-4]],
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=True),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=5, max_keep_ckpts=2, save_best='mIoU'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='SparsityHook', coefficient=5e-3),  # lambda of Eq. 2
    dict(type='ExchangeMonitorHook'),
    dict(type='LastAndBestHook'),
    dict(type='SheetHook'),
]
