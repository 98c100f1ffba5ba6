# The official code's choices: every channel may be exchanged, dropout at test.
_base_ = './taskonomy_shade-texture_to_rgb.py'
model = dict(
    network=dict(norm_cfg=dict(region='all')),
    test_cfg=dict(dropout=True),
)
