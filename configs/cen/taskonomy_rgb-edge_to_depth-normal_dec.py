# Table 9: exchange in the decoders alone.
_base_ = './taskonomy_rgb-edge_to_depth-normal.py'
model = dict(network=dict(encoder=dict(exchange=False)))
