# Table 2, "concat", all stages, in the setting of CEN: all streams continue.
# It starts as the identity, because a random convolution destroys ImageNet's features.
_base_ = '../../../configs/cen/nyud_lwrefinenet_efflite0.py'
custom_imports = dict(imports=['mmcen', 'projects.paper.rivals'])
model = dict(
    type='FusionEncoderDecoder',
    exchange=dict(_delete_=True),
    fusion=dict(
        type='ConcatFusion',
        after=[f'timm_model.blocks.{i}' for i in (1, 2, 4, 6)],
        identity=True,
    ),
)
