norm_cfg = dict(type='BN')  # of the heads
model = dict(
    type='CENEncoderDecoder',
    # An experiment adds data_preprocessor.modalities: they are the streams.
    data_preprocessor=dict(type='CENDataPreprocessor', size=(500, 500)),
    backbone=dict(
        type='CENResNet',
        depth=152,
        dilations=(1, 1, 2, 4),
        strides=(1, 2, 1, 1),
        contract_dilation=True,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet152'),
    ),
    decode_head=dict(
        type='PSPHead',
        in_channels=2048,
        in_index=3,
        channels=512,
        pool_scales=(1, 2, 3, 6),
        dropout_ratio=0.1,
        num_classes=40,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=1024,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=40,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.4),
    ),
    exchange=dict(threshold=2e-2),  # theta of Eq. 4
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
