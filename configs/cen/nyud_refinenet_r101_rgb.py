# Table 2: colour alone, the unimodal baseline. 45.5 mIoU.
_base_ = 'nyud_refinenet_r101.py'
modalities = [dict(name='rgb', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])]
model = dict(data_preprocessor=dict(modalities=modalities))
