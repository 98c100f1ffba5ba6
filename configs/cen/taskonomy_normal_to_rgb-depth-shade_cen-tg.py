# Table 8, CEN-dec with Task Grouping: the last two tasks share an encoder, all decoders exchange
# (143.7 M).
_base_ = './taskonomy_normal_to_rgb-depth-shade.py'
model = dict(network=dict(encoder=dict(groups=[0, 1, 1])))
