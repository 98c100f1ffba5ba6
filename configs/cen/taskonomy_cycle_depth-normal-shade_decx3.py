# Table 6: a decoder for each flow (124.2 M).
_base_ = './taskonomy_cycle_depth-normal-shade.py'
model = dict(network=dict(decoder=dict(groups='task')))
