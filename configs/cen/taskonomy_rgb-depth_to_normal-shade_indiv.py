# Table 9: two networks that share and exchange nothing (108.8 M).
_base_ = './taskonomy_rgb-depth_to_normal-shade.py'
model = dict(
    network=dict(
        encoder=dict(groups='task', exchange=False),
        decoder=dict(exchange=False),
    )
)
