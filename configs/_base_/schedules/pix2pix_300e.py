# Paper and official code: Adam, batch 1, 300 epochs at one learning rate.
adam = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=2e-4, betas=(0.5, 0.999), fused=True),
)
optim_wrapper = dict(
    constructor='mmagic.MultiOptimWrapperConstructor',
    network=adam,
    discriminators=adam,
    ensemble=adam,
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    checkpoint=dict(type='CheckpointHook', interval=5, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='SparsityHook', coefficient=1e-3),  # lambda of Eq. 2
    dict(type='ExchangeMonitorHook'),
    dict(type='LastAndBestHook', key=None, rule='less'),
    dict(type='SheetHook'),
]
