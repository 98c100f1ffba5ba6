# Table 8: classes (painted), depth and normal from RGB; decoders exchange (124.2 M).
_base_ = [
    '../_base_/models/cen_pix2pix.py',
    '../_base_/datasets/taskonomy.py',
    '../_base_/schedules/pix2pix_300e.py',
    '../_base_/default_runtime.py',
]
tasks = [
    dict(name='segment_semantic', inputs=['rgb']),
    dict(name='depth_euclidean', inputs=['rgb']),
    dict(name='normal', inputs=['rgb']),
]
metrics = dict(
    segment_semantic=['MAE', 'RMSE'],
    depth_euclidean=['MAE', 'RMSE'],
    normal=['MAE', 'RMSE'],
)
domains = ['rgb', 'segment_semantic', 'depth_euclidean', 'normal']
model = dict(tasks=tasks)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = dict(metrics=metrics)
test_evaluator = val_evaluator
