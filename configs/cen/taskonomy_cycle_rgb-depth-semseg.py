# Table 6: the cycle of RGB, depth and classes (painted); one encoder, one decoder (54.5 M).
_base_ = [
    '../_base_/models/cen_pix2pix.py',
    '../_base_/datasets/taskonomy.py',
    '../_base_/schedules/pix2pix_300e.py',
    '../_base_/default_runtime.py',
]
tasks = [
    dict(name='segment_semantic', inputs=['rgb', 'depth_euclidean']),
    dict(name='depth_euclidean', inputs=['rgb', 'segment_semantic']),
    dict(name='rgb', inputs=['depth_euclidean', 'segment_semantic']),
]
metrics = dict(
    segment_semantic=['MAE', 'RMSE'],
    depth_euclidean=['MAE', 'RMSE'],
    rgb=['FID', 'KID'],
)
domains = ['rgb', 'depth_euclidean', 'segment_semantic']
model = dict(
    tasks=tasks,
    network=dict(decoder=dict(groups='shared', exchange=False)),
)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = dict(metrics=metrics)
test_evaluator = val_evaluator
