# Self-attention for any subset of its modalities, as nyud_lwrefinenet_efflite0_dropout.py.
_base_ = 'efflite0_selfatt.py'
model = dict(modality_dropout=dict(p=0.3, keep_at_least=1))
