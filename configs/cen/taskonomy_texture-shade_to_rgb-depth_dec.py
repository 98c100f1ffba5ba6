# Table 9: exchange in the decoders alone.
_base_ = './taskonomy_texture-shade_to_rgb-depth.py'
model = dict(network=dict(encoder=dict(exchange=False)))
