# Colour alone, the unimodal baseline.
_base_ = 'nyud_lwrefinenet_efflite0.py'
rgb = dict(mean=[127.0, 127.0, 127.0], std=[128.0, 128.0, 128.0])
model = dict(data_preprocessor=dict(modalities=dict(_delete_=True, rgb=rgb)))
