# Table 8: RGB, depth and occlusion edges from texture; decoders exchange (124.2 M).
_base_ = [
    '../_base_/models/cen_pix2pix.py',
    '../_base_/datasets/taskonomy.py',
    '../_base_/schedules/pix2pix_300e.py',
    '../_base_/default_runtime.py',
]
tasks = [
    dict(name='rgb', inputs=['edge_texture']),
    dict(name='depth_euclidean', inputs=['edge_texture']),
    dict(name='edge_occlusion', inputs=['edge_texture']),
]
metrics = dict(
    rgb=['FID', 'KID'],
    depth_euclidean=['MAE', 'RMSE'],
    edge_occlusion=['MAE', 'RMSE'],
)
domains = ['edge_texture', 'rgb', 'depth_euclidean', 'edge_occlusion']
model = dict(tasks=tasks)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = dict(metrics=metrics)
test_evaluator = val_evaluator
