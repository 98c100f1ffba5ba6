# Table 9: two networks that share and exchange nothing (108.8 M).
_base_ = './taskonomy_texture-shade_to_rgb-depth.py'
model = dict(
    network=dict(
        encoder=dict(groups='task', exchange=False),
        decoder=dict(exchange=False),
    )
)
