# Table 4: shade from RGB and normal; published MAE 11.03, "MSE" 17.16.
_base_ = [
    '../_base_/models/cen_pix2pix.py',
    '../_base_/datasets/taskonomy.py',
    '../_base_/schedules/pix2pix_300e.py',
    '../_base_/default_runtime.py',
]
tasks = [dict(name='reshading', inputs=['rgb', 'normal'])]
metrics = dict(
    reshading=['MAE', 'RMSE'],
)
domains = ['rgb', 'normal', 'reshading']
model = dict(tasks=tasks)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = dict(metrics=metrics)
test_evaluator = val_evaluator
