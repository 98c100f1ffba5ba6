# Unsupervised RGB-D saliency on rendered rooms: from scratch on a CPU within minutes.
_base_ = [
    '../_base_/models/cen_saliency.py',
    '../_base_/datasets/salient_rooms.py',
    '../_base_/schedules/small_from_scratch.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(modalities={{_base_.modalities}}),
    backbone=dict(depth=18, base_channels=32, norm_eval=False, init_cfg=None),
    decode_head=dict(
        in_channels=[32, 64, 128, 256], channels=64, light_weight=True, dropout_ratio=0.1
    ),
)
default_hooks = dict(checkpoint=dict(save_best='MAE', rule='less'))
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='SparsityHook', coefficient=5e-4),
    dict(type='ExchangeMonitorHook', interval=25),
    dict(type='LastAndBestHook', key='MAE', rule='less'),
    dict(type='PseudoLabelHook', pipeline={{_base_.update_pipeline}}, interval=1),
    dict(type='SheetHook'),
]
