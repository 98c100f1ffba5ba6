# Depth alone, the unimodal baseline.
_base_ = 'nyud_lwrefinenet_efflite0.py'
modalities = [dict(name='depth', mean=[2.8], std=[2.8])]
model = dict(data_preprocessor=dict(modalities=modalities))
