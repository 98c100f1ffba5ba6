# Table 9: exchange in the encoder alone.
_base_ = './taskonomy_texture-shade_to_rgb-depth.py'
model = dict(network=dict(decoder=dict(exchange=False)))
