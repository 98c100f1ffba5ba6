# Table 7, X-TC: predicted tasks must agree; no exchange.
_base_ = './taskonomy_rgb_to_semseg-depth_cen-xtc.py'
model = dict(network=dict(decoder=dict(exchange=False)))
