# Segmentation of rendered rooms for the tables: the demo at half its pixels, so that a row takes a
# minute or two on a core.
_base_ = '../../../configs/cen/rooms_lwrefinenet_r18.py'
train_dataloader = dict(dataset=dict(size=(64, 96)))
val_dataloader = dict(dataset=dict(size=(64, 96)))
test_dataloader = val_dataloader
