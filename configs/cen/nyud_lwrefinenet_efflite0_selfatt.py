# Table 2, "self-attention", all stages, in the setting of CEN: every stream goes on.
# It starts as the stream's own features: ImageNet's do not survive a random convolution.
_base_ = 'nyud_lwrefinenet_efflite0.py'
model = dict(
    backbone=dict(
        norm_cfg=dict(exchange=False),
        fusion=dict(type='SelfAttentionFusion', after=(1, 2, 3, 4), identity=True),
    )
)
