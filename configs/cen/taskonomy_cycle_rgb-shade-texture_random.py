# Table 6, CEN-random: one flow, drawn anew, in each step; a decoder for each (124.2 M).
_base_ = './taskonomy_cycle_rgb-shade-texture.py'
model = dict(
    network=dict(decoder=dict(groups='task')),
    train_cfg=dict(flow='random'),
)
