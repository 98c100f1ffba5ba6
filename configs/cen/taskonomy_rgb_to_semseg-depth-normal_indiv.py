# Table 8: three networks that share nothing (163.3 M).
_base_ = './taskonomy_rgb_to_semseg-depth-normal.py'
model = dict(network=dict(encoder=dict(groups='task'), decoder=dict(exchange=False)))
