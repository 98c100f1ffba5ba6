# Table 14: unsupervised RGB-D saliency. Published MAE, CEN applied to reference [82]: NJUD
# .132, NLPR .059, STERE .095, DUTLF-Depth .103. Schedule, size and rounds are those of the code of
# [82]; backbone and head replace its CPD-ResNet50.
_base_ = [
    '../_base_/models/cen_saliency.py',
    '../_base_/datasets/rgbd_saliency.py',
    '../_base_/default_runtime.py',
]
model = dict(data_preprocessor=dict(modalities={{_base_.modalities}}))
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=1e-4),
    clip_grad=dict(type='value', clip_value=0.5),
    paramwise_cfg=dict(custom_keys={'ensemble': dict(lr_mult=10.0)}),
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=40, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=2, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='SparsityHook', coefficient=1e-3),
    dict(type='ExchangeMonitorHook'),
    dict(type='LastAndBestHook', key='njud/MAE', rule='less'),
    dict(type='PseudoLabelHook', pipeline={{_base_.update_pipeline}}, interval=3),
]
