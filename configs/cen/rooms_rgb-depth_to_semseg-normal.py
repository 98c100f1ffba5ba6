# Demo of multimodal multitask learning (section 3.5), minutes on two cores: classes (cross
# entropy) and normals (an image) from colour and depth.
_base_ = [
    '../_base_/models/cen_pix2pix_small.py',
    '../_base_/datasets/rooms_domains.py',
    '../_base_/schedules/small_translation.py',
    '../_base_/default_runtime.py',
]
classes = dict(type='ClassHead', num_classes=10)
tasks = [
    dict(name='segment_semantic', inputs=['rgb', 'depth_zbuffer'], head=classes),
    dict(name='normal', inputs=['rgb', 'depth_zbuffer']),
]
domains = ['rgb', 'depth_zbuffer', 'normal']
model = dict(tasks=tasks)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='TranslationMetric', metrics=dict(normal=['MAE', 'RMSE'])),
    dict(type='StreamIoUMetric', task='segment_semantic'),
]
test_evaluator = val_evaluator
