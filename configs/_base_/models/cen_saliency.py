model = dict(
    type='CENSaliency',
    data_preprocessor=dict(
        type='CENDataPreprocessor',
        modalities=dict(
            rgb=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
            depth=dict(mean=[0.5], std=[0.25]),  # relative: 1 is the nearest pixel of a frame
        ),
    ),
    backbone=dict(
        type='CENResNet',
        depth=50,
        norm_eval=True,  # frozen ImageNet statistics
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    decode_head=dict(
        type='RefineNetHead',
        in_channels=[256, 512, 1024, 2048],
        channels=256,
        num_classes=2,
        out_channels=1,
        threshold=0.5,
        dropout_ratio=0.5,
    ),
    exchange=dict(threshold=2e-2),  # theta of Eq. 4
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
