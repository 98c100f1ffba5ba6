# A decoder with 1x1 convolutions (Light-Weight RefineNet) instead of one with 523 GFLOPs.
_base_ = 'nyud_refinenet_r50.py'
model = dict(decode_head=dict(light_weight=True))
