# Table 8: three networks that share nothing (163.3 M).
_base_ = './taskonomy_texture_to_rgb-depth-edge.py'
model = dict(network=dict(encoder=dict(groups='task'), decoder=dict(exchange=False)))
