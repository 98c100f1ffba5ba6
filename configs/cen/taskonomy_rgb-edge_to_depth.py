# Table 4: depth from RGB and occlusion edges; published MAE 2.75, "MSE" 6.60.
_base_ = [
    '../_base_/models/cen_pix2pix.py',
    '../_base_/datasets/taskonomy.py',
    '../_base_/schedules/pix2pix_300e.py',
    '../_base_/default_runtime.py',
]
tasks = [dict(name='depth_euclidean', inputs=['rgb', 'edge_occlusion'])]
metrics = dict(
    depth_euclidean=['MAE', 'RMSE'],
)
domains = ['rgb', 'edge_occlusion', 'depth_euclidean']
model = dict(tasks=tasks)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = dict(metrics=metrics)
test_evaluator = val_evaluator
