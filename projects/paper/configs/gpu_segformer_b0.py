# mmsegmentation's SegFormer-B0 on colour and depth, for the figures of gpu_day.py.
_base_ = 'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py'
custom_imports = dict(imports=['mmcen'])
modalities = [
    dict(name='rgb', mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4]),
    dict(name='depth', mean=[2.8], std=[1.6]),
]
model = dict(
    type='CENEncoderDecoder',
    exchange=dict(after='norm'),
    data_preprocessor=dict(type='CENDataPreprocessor', modalities=modalities, size=None),
    decode_head=dict(num_classes=40),
)
custom_hooks = [dict(type='SparsityHook', coefficient=5e-3)]
