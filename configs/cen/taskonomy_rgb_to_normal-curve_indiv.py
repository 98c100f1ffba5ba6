# Table 7: two networks that share nothing (108.8 M).
_base_ = './taskonomy_rgb_to_normal-curve.py'
model = dict(network=dict(encoder=dict(groups='task'), decoder=dict(exchange=False)))
