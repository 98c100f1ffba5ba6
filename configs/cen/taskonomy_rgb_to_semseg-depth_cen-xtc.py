# Table 7, CEN-dec with X-TC: decoders exchange, and predicted tasks must agree.
_base_ = './taskonomy_rgb_to_semseg-depth.py'
custom_imports = dict(imports=['mmcen', 'projects.paper.rivals'])
model = dict(
    type='XTCTranslator',
    consistency=dict(type='CrossTaskConsistency', network=dict(base_channels=16), weight=100.0),
)
optim_wrapper = dict(
    consistency=dict(
        type='OptimWrapper',
        optimizer=dict(type='Adam', lr=2e-4, betas=(0.5, 0.999), fused=True),
    )
)
