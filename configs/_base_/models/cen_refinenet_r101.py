model = dict(
    type='CENEncoderDecoder',
    # The modalities are the streams: the grid's size is stated here and nowhere else.
    data_preprocessor=dict(
        type='CENDataPreprocessor',
        modalities=dict(
            rgb=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
            depth=dict(mean=[0.0], std=[5.0]),  # metres; official: depth in mm / 5000
        ),
        size=(500, 500),
    ),
    backbone=dict(
        type='CENResNet',
        depth=101,
        norm_eval=True,  # frozen ImageNet statistics
        # ImageNet weights: from the usual place, from a file by checkpoint=<path>, or not at all
        # by init_cfg=None (then with norm_eval=False)
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101'),
    ),
    decode_head=dict(
        type='RefineNetHead',
        in_channels=[256, 512, 1024, 2048],
        channels=256,
        num_classes=40,
        dropout_ratio=0.5,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
    exchange=dict(threshold=2e-2),  # theta of Eq. 4
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
