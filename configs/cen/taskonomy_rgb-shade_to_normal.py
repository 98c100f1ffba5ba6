# Table 4: normal from RGB and shade; published MAE 11.23, "MSE" 25.09.
_base_ = [
    '../_base_/models/cen_pix2pix.py',
    '../_base_/datasets/taskonomy.py',
    '../_base_/schedules/pix2pix_300e.py',
    '../_base_/default_runtime.py',
]
tasks = [dict(name='normal', inputs=['rgb', 'reshading'])]
metrics = dict(
    normal=['MAE', 'RMSE'],
)
domains = ['rgb', 'reshading', 'normal']
model = dict(tasks=tasks)
train_dataloader = dict(dataset=dict(modalities=domains))
val_dataloader = dict(dataset=dict(modalities=domains))
test_dataloader = val_dataloader
val_evaluator = dict(metrics=metrics)
test_evaluator = val_evaluator
