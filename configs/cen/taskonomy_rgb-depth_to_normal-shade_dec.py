# Table 9: exchange in the decoders alone.
_base_ = './taskonomy_rgb-depth_to_normal-shade.py'
model = dict(network=dict(encoder=dict(exchange=False)))
