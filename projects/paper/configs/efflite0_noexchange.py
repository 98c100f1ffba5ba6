# Shared convs, private norms, no penalty, no exchange; the ensemble alone fuses.
_base_ = '../../../configs/cen/nyud_lwrefinenet_efflite0.py'
model = dict(exchange=dict(after=None))
