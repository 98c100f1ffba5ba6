# As the official code, not the paper: every channel may be exchanged, the penalty is on the
# disjoint parts alone. Its lambda, 2e-4, was added once for each of its three outputs; here the
# penalty is added once, so three times that.
_base_ = 'nyud_refinenet_r101.py'
model = dict(exchange=dict(region='all'))
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='SparsityHook', coefficient=6e-4),
    dict(type='ExchangeMonitorHook'),
    dict(type='LastAndBestHook'),
    dict(type='SheetHook'),
]
