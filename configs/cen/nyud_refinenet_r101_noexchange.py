# Table 1, row 3: shared convs, private norms, no penalty, no exchange; the ensemble alone fuses.
# Published: 48.0 mIoU.
_base_ = 'nyud_refinenet_r101.py'
model = dict(exchange=dict(after=None))
