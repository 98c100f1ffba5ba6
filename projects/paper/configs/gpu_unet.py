# The U-Net of two inputs by itself, for the figures of gpu_day.py.
custom_imports = dict(imports=['mmcen'])
model = dict(type='CENUNetGenerator', inputs=[[0, 1]], norm_cfg=dict(type='CENIN'))
