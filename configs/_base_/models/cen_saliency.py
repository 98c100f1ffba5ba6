model = dict(
    type='CENSaliency',
    # An experiment adds data_preprocessor.modalities: they are the streams.
    data_preprocessor=dict(type='CENDataPreprocessor'),
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
