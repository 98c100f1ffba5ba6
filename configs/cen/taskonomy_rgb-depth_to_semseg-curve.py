# Table 9: classes (painted) and curvature from RGB and depth; exchange everywhere (89.3 M).
_base_ = [
    '../_base_/models/cen_pix2pix.py',
    '../_base_/datasets/taskonomy.py',
    '../_base_/schedules/pix2pix_300e.py',
    '../_base_/default_runtime.py',
]
tasks = [
    dict(name='segment_semantic', inputs=['rgb', 'depth_euclidean']),
    dict(name='principal_curvature', inputs=['rgb', 'depth_euclidean']),
]
metrics = dict(
    segment_semantic=['MAE', 'RMSE'],
    principal_curvature=['MAE', 'RMSE'],
)
domains = ['rgb', 'depth_euclidean', 'segment_semantic', 'principal_curvature']
model = dict(tasks=tasks)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = dict(metrics=metrics)
test_evaluator = val_evaluator
