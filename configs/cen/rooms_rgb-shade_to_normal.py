# Demo of multimodal fusion (section 3.2), minutes on two cores: normals from colour and
# shading.
_base_ = [
    '../_base_/models/cen_pix2pix_small.py',
    '../_base_/datasets/rooms_domains.py',
    '../_base_/schedules/small_translation.py',
    '../_base_/default_runtime.py',
]
tasks = [dict(name='normal', inputs=['rgb', 'reshading'])]
metrics = dict(normal=['MAE', 'RMSE'])
domains = ['rgb', 'reshading', 'normal']
model = dict(tasks=tasks)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = dict(metrics=metrics)
test_evaluator = val_evaluator
