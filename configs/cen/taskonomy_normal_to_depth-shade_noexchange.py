# Table 7: a shared encoder, no exchange (89.3 M).
_base_ = './taskonomy_normal_to_depth-shade.py'
model = dict(network=dict(decoder=dict(exchange=False)))
