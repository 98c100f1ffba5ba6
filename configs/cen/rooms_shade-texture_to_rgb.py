# Demo of multimodal fusion (section 3.2), minutes on two cores: colour from shading and edges.
_base_ = [
    '../_base_/models/cen_pix2pix_small.py',
    '../_base_/datasets/rooms_domains.py',
    '../_base_/schedules/small_translation.py',
    '../_base_/default_runtime.py',
]
tasks = dict(rgb=['reshading', 'edge_texture'])
metrics = dict(rgb=['MAE', 'RMSE'])
domains = ['reshading', 'edge_texture', 'rgb']
model = dict(tasks=tasks)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = dict(metrics=metrics)
test_evaluator = val_evaluator
