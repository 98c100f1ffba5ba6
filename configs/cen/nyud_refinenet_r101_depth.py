# Table 2: depth alone, the unimodal baseline. 35.8 mIoU.
_base_ = 'nyud_refinenet_r101.py'
model = dict(
    data_preprocessor=dict(modalities=dict(_delete_=True, depth=dict(mean=[0.0], std=[5.0])))
)
