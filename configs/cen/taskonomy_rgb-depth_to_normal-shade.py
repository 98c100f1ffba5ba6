# Table 9: normal and shade from RGB and depth; exchange in encoder and decoders (89.3 M).
_base_ = [
    '../_base_/models/cen_pix2pix.py',
    '../_base_/datasets/taskonomy.py',
    '../_base_/schedules/pix2pix_300e.py',
    '../_base_/default_runtime.py',
]
tasks = [
    dict(name='normal', inputs=['rgb', 'depth_euclidean']),
    dict(name='reshading', inputs=['rgb', 'depth_euclidean']),
]
metrics = dict(
    normal=['MAE', 'RMSE'],
    reshading=['MAE', 'RMSE'],
)
domains = ['rgb', 'depth_euclidean', 'normal', 'reshading']
model = dict(tasks=tasks)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = dict(metrics=metrics)
test_evaluator = val_evaluator
