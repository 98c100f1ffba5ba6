# Table 6: an encoder and a decoder for each flow, which share nothing (163.3 M).
_base_ = './taskonomy_cycle_depth-normal-shade.py'
model = dict(network=dict(encoder=dict(groups='task'), decoder=dict(groups='task')))
