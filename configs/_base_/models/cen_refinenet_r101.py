model = dict(
    type='CENEncoderDecoder',
    # An experiment adds data_preprocessor.modalities: they are the streams.
    data_preprocessor=dict(type='CENDataPreprocessor', size=(500, 500)),
    backbone=dict(
        type='CENResNet',
        depth=101,
        norm_eval=True,  # frozen ImageNet statistics
        # ImageNet weights: by default from torchvision, from a file by checkpoint=<path>, or none
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
