# Table 10: RGB from shade, texture and depth; published FID 58.35, KID 1.42.
_base_ = [
    '../_base_/models/cen_pix2pix.py',
    '../_base_/datasets/taskonomy.py',
    '../_base_/schedules/pix2pix_300e.py',
    '../_base_/default_runtime.py',
]
tasks = [dict(name='rgb', inputs=['reshading', 'edge_texture', 'depth_euclidean'])]
metrics = dict(
    rgb=['FID', 'KID'],
)
domains = ['reshading', 'edge_texture', 'depth_euclidean', 'rgb']
model = dict(tasks=tasks)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = dict(metrics=metrics)
test_evaluator = val_evaluator
