# Table 4: RGB from shade and texture; published FID 62.63, KID 1.65.
_base_ = [
    '../_base_/models/cen_pix2pix.py',
    '../_base_/datasets/taskonomy.py',
    '../_base_/schedules/pix2pix_300e.py',
    '../_base_/default_runtime.py',
]
tasks = [dict(name='rgb', inputs=['reshading', 'edge_texture'])]
metrics = dict(
    rgb=['FID', 'KID'],
)
domains = ['reshading', 'edge_texture', 'rgb']
model = dict(tasks=tasks)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = dict(metrics=metrics)
test_evaluator = val_evaluator
