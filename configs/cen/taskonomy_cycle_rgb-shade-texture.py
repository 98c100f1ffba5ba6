# Table 6: the cycle of RGB, shade and texture; one encoder, one decoder (54.5 M).
_base_ = [
    '../_base_/models/cen_pix2pix.py',
    '../_base_/datasets/taskonomy.py',
    '../_base_/schedules/pix2pix_300e.py',
    '../_base_/default_runtime.py',
]
tasks = [
    dict(name='edge_texture', inputs=['rgb', 'reshading']),
    dict(name='reshading', inputs=['rgb', 'edge_texture']),
    dict(name='rgb', inputs=['reshading', 'edge_texture']),
]
metrics = dict(
    edge_texture=['MAE', 'RMSE'],
    reshading=['MAE', 'RMSE'],
    rgb=['FID', 'KID'],
)
domains = ['rgb', 'reshading', 'edge_texture']
model = dict(
    tasks=tasks,
    network=dict(decoder=dict(groups='shared', exchange=False)),
)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = dict(metrics=metrics)
test_evaluator = val_evaluator
