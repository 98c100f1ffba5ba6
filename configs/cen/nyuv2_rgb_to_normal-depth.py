# Multitask learning on domains derived from NYUv2, for two CPU cores.
_base_ = [
    '../_base_/models/cen_pix2pix_small.py',
    '../_base_/datasets/nyuv2_domains.py',
    '../_base_/schedules/small_translation.py',
    '../_base_/default_runtime.py',
]
tasks = [dict(name='normal', inputs=['rgb']), dict(name='depth_euclidean', inputs=['rgb'])]
domains = ['rgb', 'normal', 'depth_euclidean']
model = dict(tasks=tasks)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = dict(metrics={task['name']: ['MAE', 'RMSE'] for task in tasks})
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=5, val_interval=5)
