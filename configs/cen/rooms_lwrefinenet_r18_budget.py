# The demo with exchange under a budget: each stream takes 30 % of its channels from the other one.
_base_ = 'rooms_lwrefinenet_r18.py'
model = dict(exchange=dict(budget=0.3))
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='ExchangeBudgetHook'),
    dict(type='ExchangeMonitorHook', interval=25),
    dict(type='LastAndBestHook'),
    dict(type='SheetHook'),
]
