# Table 7: two networks that share nothing (108.8 M).
_base_ = './taskonomy_normal_to_depth-shade.py'
model = dict(network=dict(encoder=dict(groups='task'), decoder=dict(exchange=False)))
