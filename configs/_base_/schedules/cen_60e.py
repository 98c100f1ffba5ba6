# The paper on SUN RGB-D: 60 epochs, rates halved every 20.
_base_ = 'cen_300e.py'
param_scheduler = dict(
    milestones=[20, 40],
    rates=[[5e-4, 2.5e-4, 1.25e-4], [3e-3, 1.5e-3, 7.5e-4]],
)
train_cfg = dict(max_epochs=60)
