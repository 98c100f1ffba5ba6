# The weights that mmcen ships: 20 more epochs after nyud_lwrefinenet_efflite0_robust.py, with fewer
# frames that are damaged. Those of the package were trained without own_norms, and their statistics
# for one modality were measured afterwards. See mmcen/weights/nyuv2-efflite0.md.
_base_ = 'nyud_lwrefinenet_efflite0_robust.py'
load_from = 'work_dirs/nyud_lwrefinenet_efflite0_robust/epoch_24.pth'
model = dict(modality_dropout=dict(p=0.2, own_norms=True))
train_pipeline = [
    dict(stage, prob=0.05) if stage['type'] == 'CorruptModality' else stage
    for stage in _base_.train_pipeline
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(optimizer=dict(lr=3e-4))
train_cfg = dict(max_epochs=20, val_interval=20)
custom_hooks = [  # without ExchangeBudgetHook: the channels that were chosen stay
    dict(type='EpochSeedHook'),
    dict(type='ExchangeMonitorHook', interval=25),
    dict(type='LastAndBestHook'),
    dict(type='SheetHook'),
]
