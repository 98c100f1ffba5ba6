# Your own folders on a CPU or a small GPU: copy this file and edit the lines above the rule
# (docs/quickstart.md). EfficientNet-Lite0 with ImageNet weights (requirements/efficientnet.txt).
_base_ = 'nyud_lwrefinenet_efflite0.py'
data_root = 'data/mine'
# A frame's files are data_root/dir/FRAME+suffix; the lists name frames, one a line.
train_list, val_list = 'splits/train.txt', 'splits/val.txt'
classes = ('floor', 'wall', 'object')  # label files hold their numbers from 0, and 255 for void
labels = dict(dir='labels', suffix='.png')
# The order is the order of the streams. Mean and deviation of rgb are what the weights expect.
modalities = [
    dict(
        name='rgb',
        dir='rgb',
        suffix='.jpg',
        mean=[127.0] * 3,
        std=[128.0] * 3,
        interpolation='area',
    ),
    dict(name='depth', dir='depth', suffix='.png', unit='mm', mean=[2.8], std=[2.8]),  # metres
]
size = (208, 160)  # width, height: frames are resized to it, predictions are at the frame's size
epochs = 12
# ------------------------------------------------------------------------------------------------
train_pipeline = [
    dict(type='LoadModalities'),
    dict(type='LoadLabel'),
    dict(
        type='ForEachModality',
        transforms=[dict(type='RandomResize', scale=size, ratio_range=(1.0, 1.6))],
    ),
    dict(
        type='ForEachModality',
        transforms=[
            dict(type='RandomCrop', crop_size=size[::-1]),
            dict(type='RandomFlip', prob=0.5),
        ],
    ),
    dict(type='PackModalities'),
]
test_pipeline = [
    dict(type='LoadModalities'),
    dict(type='ForEachModality', transforms=[dict(type='Resize', scale=size)]),
    dict(type='LoadLabel', optional=True),
    dict(type='PackModalities'),
]
dataset = dict(
    _delete_=True,
    type='RGBDFolderDataset',
    data_root=data_root,
    modalities=modalities,
    labels=labels,
    metainfo=dict(classes=classes),
)
train_dataloader = dict(dataset=dict(ann_file=train_list, pipeline=train_pipeline, **dataset))
val_dataloader = dict(dataset=dict(ann_file=val_list, pipeline=test_pipeline, **dataset))
test_dataloader = val_dataloader
model = dict(
    data_preprocessor=dict(modalities=modalities),
    decode_head=dict(num_classes=len(classes)),
    exchange=dict(_delete_=True, budget=0.3),  # share of its channels that each stream exchanges
)
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='ExchangeBudgetHook'),
    dict(type='ExchangeMonitorHook', interval=25),
    dict(type='LastAndBestHook'),
    dict(type='SheetHook'),
]
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
