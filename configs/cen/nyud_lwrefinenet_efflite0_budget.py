# Exchange under a budget: 30 % of the channels, those whose exchange lowers the loss most. No
# penalty, which would act on the scales without need.
_base_ = 'nyud_lwrefinenet_efflite0.py'
model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='CENBN', budget=0.3)))
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='ExchangeBudgetHook'),
    dict(type='ExchangeMonitorHook', interval=25),
    dict(type='LastAndBestHook'),
    dict(type='SheetHook'),
]
