# Minutes on a CPU: a higher rate, and a much higher one for the norms' scales, which would not
# reach the threshold within so few steps.
adam = dict(
    type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3, betas=(0.5, 0.999), fused=True)
)
scales = dict(paramwise_cfg=dict(custom_keys={'.norm.weight': dict(lr_mult=6.0)}))
optim_wrapper = dict(
    constructor='mmagic.MultiOptimWrapperConstructor',
    network=dict(**adam, **scales),
    discriminators=dict(**adam),
    ensemble=dict(
        type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-2, betas=(0.5, 0.999), fused=True)
    ),
)
param_scheduler = dict(type='CosineAnnealingLR', eta_min=0.0, convert_to_iter_based=True)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=12)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=25),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='SparsityHook', coefficient=1e-3),
    dict(type='ExchangeMonitorHook', interval=25),
    dict(type='LastAndBestHook', key=None, rule='less'),
    dict(type='SheetHook'),
]
