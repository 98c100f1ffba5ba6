# Segmentation of rendered rooms for the tables: the demo at half its height and width, so that a
# row takes a minute on a core. The coefficient is the paper's: with the demo's, scales reach the
# threshold when half of these few steps are over, and what is exchanged late is learned late.
_base_ = '../../../configs/cen/rooms_lwrefinenet_r18.py'
train_dataloader = dict(dataset=dict(size=(48, 64)))
val_dataloader = dict(dataset=dict(size=(48, 64)))
test_dataloader = val_dataloader
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='SparsityHook', coefficient=5e-3),
    dict(type='ExchangeMonitorHook', interval=25),
    dict(type='LastAndBestHook'),
]
