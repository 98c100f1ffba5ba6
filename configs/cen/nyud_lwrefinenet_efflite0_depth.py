# Depth alone, the unimodal baseline.
_base_ = 'nyud_lwrefinenet_efflite0.py'
depth = dict(mean=[2.8], std=[2.8])
model = dict(data_preprocessor=dict(modalities=dict(_delete_=True, depth=depth)))
