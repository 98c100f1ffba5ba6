# Table 6: the cycle of depth, normal and shade; one encoder, one decoder (54.5 M).
_base_ = [
    '../_base_/models/cen_pix2pix.py',
    '../_base_/datasets/taskonomy.py',
    '../_base_/schedules/pix2pix_300e.py',
    '../_base_/default_runtime.py',
]
tasks = [
    dict(name='reshading', inputs=['depth_euclidean', 'normal']),
    dict(name='normal', inputs=['depth_euclidean', 'reshading']),
    dict(name='depth_euclidean', inputs=['normal', 'reshading']),
]
metrics = dict(
    reshading=['MAE', 'RMSE'],
    normal=['MAE', 'RMSE'],
    depth_euclidean=['MAE', 'RMSE'],
)
domains = ['depth_euclidean', 'normal', 'reshading']
model = dict(
    tasks=tasks,
    network=dict(decoder=dict(groups='shared', exchange=False)),
)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = dict(metrics=metrics)
test_evaluator = val_evaluator
