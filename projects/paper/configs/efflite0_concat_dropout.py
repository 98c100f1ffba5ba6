# Concat for any subset of its modalities, trained as nyud_lwrefinenet_efflite0_dropout.py.
_base_ = 'efflite0_concat.py'
model = dict(modality_dropout=dict(p=0.3, keep_at_least=1))
