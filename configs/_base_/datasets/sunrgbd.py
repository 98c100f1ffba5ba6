"""SUN RGB-D, colour and depth: NYUv2's augmentation, as both are rooms of about the same size."""

_base_ = 'nyuv2.py'
dataset_type = 'SUNRGBDDataset'
train_dataloader = dict(dataset=dict(type=dataset_type))
val_dataloader = dict(dataset=dict(type=dataset_type))
test_dataloader = val_dataloader
