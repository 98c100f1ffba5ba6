# Table 2, "self-attention", all stages, in the setting of CEN: every stream goes on.
_base_ = 'nyud_lwrefinenet_efflite0_noexchange.py'
model = dict(backbone=dict(fusion=dict(type='SelfAttentionFusion', after=(1, 2, 3, 4))))
