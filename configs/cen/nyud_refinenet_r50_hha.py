# Colour and HHA (Gupta et al. 2014) instead of colour and depth: three channels each.
# For colour, depth and HHA: keep=True, and depth in the preprocessor.
_base_ = 'nyud_refinenet_r50.py'
load = [
    dict(type='LoadModalities'),
    dict(
        type='DepthToHHA',
        camera=(518.8579, 519.4696, 325.5824, 253.7362),  # fx, fy, cx, cy of NYUv2's toolbox
        size=(640, 480),
        keep=False,
        step=0.0,  # 0.039 for depth in 8 bits
    ),
]
crop_size = (500, 500)
train_pipeline = [
    *load,
    dict(type='LoadLabel'),
    dict(
        type='ForEachModality',
        transforms=[
            dict(type='RandomScaleCrop', crop_size=crop_size),
            dict(type='Pad', size=crop_size),
            dict(type='RandomFlip', prob=0.5),
        ],
    ),
    dict(type='PackModalities'),
]
test_pipeline = [*load, dict(type='LoadLabel', optional=True), dict(type='PackModalities')]
scales = [dict(type='Resize', scale_factor=ratio, keep_ratio=True) for ratio in (0.75, 1.0, 1.25)]
flips = [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)]
tta_pipeline = [
    *load,
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='ForEachModality', transforms=[scale]) for scale in scales],
            [dict(type='ForEachModality', transforms=[flip]) for flip in flips],
            [dict(type='LoadLabel', optional=True)],
            [dict(type='PackModalities')],
        ],
    ),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
# the data set loads colour and depth, the model takes
modalities = [
    dict(name='rgb', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    dict(name='hha', mean=[125.0, 111.0, 106.0], std=[55.0, 71.0, 37.0]),  # of 14 training frames
]
model = dict(data_preprocessor=dict(modalities=modalities))
