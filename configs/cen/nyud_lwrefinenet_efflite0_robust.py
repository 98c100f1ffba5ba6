# For sensors as people have them: besides absent modalities, frames with holes in the depth, noise,
# darkness and blur. The weights that mmcen ships are of this training. See docs/robustness.md.
_base_ = 'nyud_lwrefinenet_efflite0_dropout.py'
train_pipeline = [
    dict(type='LoadModalities'),
    *[
        dict(type='CorruptModality', modality=modality, kind=kind, level=level, prob=0.15)
        for modality, kind, level in [
            ('rgb', 'darkness', (0.05, 0.5)),
            ('rgb', 'motion_blur', (3, 15)),
            ('rgb', 'noise', (0.1, 0.5)),
            ('depth', 'missing_blocks', (0.1, 0.6)),
            ('depth', 'missing_pixels', (0.1, 0.8)),
            ('depth', 'distance_noise', (0.005, 0.03)),
            ('depth', 'shift', (1, 12)),
        ]
    ],
    dict(type='LoadLabel'),
    *_base_.train_pipeline[2:],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_epochs=24, val_interval=24)
