# Table 8: RGB, depth and shade from normal; decoders exchange (124.2 M).
_base_ = [
    '../_base_/models/cen_pix2pix.py',
    '../_base_/datasets/taskonomy.py',
    '../_base_/schedules/pix2pix_300e.py',
    '../_base_/default_runtime.py',
]
tasks = [
    dict(name='rgb', inputs=['normal']),
    dict(name='depth_euclidean', inputs=['normal']),
    dict(name='reshading', inputs=['normal']),
]
metrics = dict(
    rgb=['FID', 'KID'],
    depth_euclidean=['MAE', 'RMSE'],
    reshading=['MAE', 'RMSE'],
)
domains = ['normal', 'rgb', 'depth_euclidean', 'reshading']
model = dict(tasks=tasks)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = dict(metrics=metrics)
test_evaluator = val_evaluator
