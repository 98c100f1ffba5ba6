# Table 7: a shared encoder, no exchange (89.3 M).
_base_ = './taskonomy_texture_to_rgb-depth.py'
model = dict(network=dict(decoder=dict(exchange=False)))
