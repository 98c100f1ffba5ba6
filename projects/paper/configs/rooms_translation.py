# Translation on rendered rooms for the tables: half of the demo's steps, so that a row takes a
# minute or two on a core. In these steps scales reach the threshold at a higher rate alone; with
# this coefficient about 30 % of the channels are exchanged, as the paper says of its trainings.
_base_ = '../../../configs/cen/rooms_rgb-shade_to_normal.py'
optim_wrapper = dict(
    network=dict(paramwise_cfg=dict(custom_keys={'.norm.weight': dict(lr_mult=15.0)}))
)
train_cfg = dict(max_epochs=6, val_interval=6)
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='SparsityHook', coefficient=3e-3),
    dict(type='ExchangeMonitorHook', interval=25),
    dict(type='LastAndBestHook', key=None, rule='less'),
    dict(type='SheetHook'),
]
