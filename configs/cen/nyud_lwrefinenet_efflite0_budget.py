# Exchange under a budget: each stream takes 30 % of its channels from the other one. It needs no
# penalty, and no scale has to fall below a threshold.
_base_ = 'nyud_lwrefinenet_efflite0.py'
model = dict(exchange=dict(budget=0.3))
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='ExchangeBudgetHook'),
    dict(type='ExchangeMonitorHook', interval=25),
    dict(type='LastAndBestHook'),
    dict(type='SheetHook'),
]
