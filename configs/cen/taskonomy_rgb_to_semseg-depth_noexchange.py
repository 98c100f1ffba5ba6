# Table 7: a shared encoder, no exchange (89.3 M).
_base_ = './taskonomy_rgb_to_semseg-depth.py'
model = dict(network=dict(decoder=dict(exchange=False)))
