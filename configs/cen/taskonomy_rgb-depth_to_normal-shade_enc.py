# Table 9: exchange in the encoder alone.
_base_ = './taskonomy_rgb-depth_to_normal-shade.py'
model = dict(network=dict(decoder=dict(exchange=False)))
