# As nyud_lwrefinenet_efflite0_dropout.py, and norms have a second set of values for steps in which
# a modality is absent.
_base_ = 'nyud_lwrefinenet_efflite0_dropout.py'
model = dict(modality_dropout=dict(own_norms=True))
