# Table 2: depth alone, the unimodal baseline. 35.8 mIoU.
_base_ = 'nyud_refinenet_r101.py'
modalities = [dict(name='depth', mean=[0.0], std=[5.0])]
model = dict(data_preprocessor=dict(modalities=modalities))
