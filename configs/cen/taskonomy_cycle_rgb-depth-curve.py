# Table 6: the cycle of RGB, depth and curvature; one encoder, one decoder (54.5 M).
_base_ = [
    '../_base_/models/cen_pix2pix.py',
    '../_base_/datasets/taskonomy.py',
    '../_base_/schedules/pix2pix_300e.py',
    '../_base_/default_runtime.py',
]
tasks = [
    dict(name='principal_curvature', inputs=['rgb', 'depth_euclidean']),
    dict(name='depth_euclidean', inputs=['rgb', 'principal_curvature']),
    dict(name='rgb', inputs=['depth_euclidean', 'principal_curvature']),
]
metrics = dict(
    principal_curvature=['MAE', 'RMSE'],
    depth_euclidean=['MAE', 'RMSE'],
    rgb=['FID', 'KID'],
)
domains = ['rgb', 'depth_euclidean', 'principal_curvature']
model = dict(
    tasks=tasks,
    network=dict(decoder=dict(groups='shared', exchange=False)),
)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = dict(metrics=metrics)
test_evaluator = val_evaluator
