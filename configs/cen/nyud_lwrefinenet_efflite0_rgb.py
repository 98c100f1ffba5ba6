# Colour alone, the unimodal baseline.
_base_ = 'nyud_lwrefinenet_efflite0.py'
modalities = [dict(name='rgb', mean=[127.0] * 3, std=[128.0] * 3)]
model = dict(data_preprocessor=dict(modalities=modalities))
