# Table 9: exchange in the encoder alone.
_base_ = './taskonomy_rgb-edge_to_depth-normal.py'
model = dict(network=dict(decoder=dict(exchange=False)))
