# The demo: CEN on rendered rooms, trained from scratch on a CPU within minutes.
_base_ = [
    '../_base_/models/cen_refinenet_r101.py',
    '../_base_/datasets/synthetic_rooms.py',
    '../_base_/schedules/small_from_scratch.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(modalities={{_base_.modalities}}, size=None),
    backbone=dict(depth=18, base_channels=32, norm_eval=False, init_cfg=None),
    decode_head=dict(
        in_channels=[32, 64, 128, 256],
        channels=64,
        num_classes=10,
        light_weight=True,
        dropout_ratio=0.1,
    ),
)
