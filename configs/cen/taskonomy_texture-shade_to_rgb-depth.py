# Table 9: RGB and depth from texture and shade; exchange in encoder and decoders (89.3 M).
_base_ = [
    '../_base_/models/cen_pix2pix.py',
    '../_base_/datasets/taskonomy.py',
    '../_base_/schedules/pix2pix_300e.py',
    '../_base_/default_runtime.py',
]
tasks = [
    dict(name='rgb', inputs=['edge_texture', 'reshading']),
    dict(name='depth_euclidean', inputs=['edge_texture', 'reshading']),
]
metrics = dict(
    rgb=['FID', 'KID'],
    depth_euclidean=['MAE', 'RMSE'],
)
domains = ['edge_texture', 'reshading', 'rgb', 'depth_euclidean']
model = dict(tasks=tasks)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = dict(metrics=metrics)
test_evaluator = val_evaluator
