# Table 7: shade and texture from RGB; decoders exchange (89.3 M).
_base_ = [
    '../_base_/models/cen_pix2pix.py',
    '../_base_/datasets/taskonomy.py',
    '../_base_/schedules/pix2pix_300e.py',
    '../_base_/default_runtime.py',
]
tasks = [dict(name='reshading', inputs=['rgb']), dict(name='edge_texture', inputs=['rgb'])]
metrics = dict(
    reshading=['MAE', 'RMSE'],
    edge_texture=['MAE', 'RMSE'],
)
domains = ['rgb', 'reshading', 'edge_texture']
model = dict(tasks=tasks)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = dict(metrics=metrics)
test_evaluator = val_evaluator
