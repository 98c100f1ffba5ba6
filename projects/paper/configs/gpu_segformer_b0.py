# SegFormer-B0 on colour and depth, for the figures of gpu_day.py. The model is segformer_mit-b0 of
# mmsegmentation; its config is repeated because the OneDL forks do not find `mmseg::`.
custom_imports = dict(imports=['mmcen'])
modalities = [
    dict(name='rgb', mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4]),
    dict(name='depth', mean=[2.8], std=[1.6]),
]
model = dict(
    type='CENEncoderDecoder',
    exchange=dict(after='norm'),
    data_preprocessor=dict(type='CENDataPreprocessor', modalities=modalities),
    backbone=dict(
        type='MixVisionTransformer',
        embed_dims=32,
        num_layers=[2, 2, 2, 2],
        num_heads=[1, 2, 5, 8],
        patch_sizes=[7, 3, 3, 3],
        sr_ratios=[8, 4, 2, 1],
        drop_path_rate=0.1,
    ),
    decode_head=dict(
        type='SegformerHead',
        in_channels=[32, 64, 160, 256],
        in_index=[0, 1, 2, 3],
        channels=256,
        dropout_ratio=0.1,
        num_classes=40,
        norm_cfg=dict(type='BN'),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss'),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=6e-5, weight_decay=0.01))
custom_hooks = [dict(type='SparsityHook', coefficient=5e-3)]
