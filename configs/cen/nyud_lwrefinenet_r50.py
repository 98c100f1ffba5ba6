# For those who cannot pay 523 GFLOPs for a decoder: 1x1 convs, as Light-Weight RefineNet.
_base_ = 'nyud_refinenet_r50.py'
model = dict(decode_head=dict(light_weight=True))
