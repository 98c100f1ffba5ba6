# Table 8, AdaShare: each task learns which of two copies of an encoder layer it uses (143.7 M).
_base_ = './taskonomy_normal_to_rgb-depth-shade.py'
custom_imports = dict(imports=['mmcen', 'projects.paper.rivals'])
model = dict(
    type='AdaShareTranslator',
    network=dict(type='AdaShareUNet', copies=2, decoder=dict(exchange=False)),
)
optim_wrapper = dict(
    policy=dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-2, betas=(0.5, 0.999)))
)
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='PolicyHook'),
    dict(type='LastAndBestHook', key=None, rule='less'),
    dict(type='SheetHook'),
]
