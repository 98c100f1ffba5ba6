# Demo of cycle fusion (section 3.3), minutes on two cores: each of three from the other two.
_base_ = [
    '../_base_/models/cen_pix2pix_small.py',
    '../_base_/datasets/rooms_domains.py',
    '../_base_/schedules/small_translation.py',
    '../_base_/default_runtime.py',
]
tasks = [
    dict(name='reshading', inputs=['depth_zbuffer', 'normal']),
    dict(name='normal', inputs=['depth_zbuffer', 'reshading']),
    dict(name='depth_zbuffer', inputs=['normal', 'reshading']),
]
domains = ['depth_zbuffer', 'normal', 'reshading']
model = dict(
    tasks=tasks,
    network=dict(decoder=dict(groups='shared', exchange=False)),
)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = dict(metrics={task['name']: ['MAE', 'RMSE'] for task in tasks})
test_evaluator = val_evaluator
