# Table 7: a shared encoder, no exchange (89.3 M).
_base_ = './taskonomy_rgb_to_normal-curve.py'
model = dict(network=dict(decoder=dict(exchange=False)))
