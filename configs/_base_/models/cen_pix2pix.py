# pix2pix over a stream grid. An experiment adds model.tasks, which states the setting: each target
# with its inputs.
model = dict(
    type='CENTranslator',
    # all domains are images of 0..255; to -1..1
    data_preprocessor=dict(
        type='mmagic.DataPreprocessor',
        mean=127.5,
        std=127.5,
        data_keys=None,
        stack_data_sample=False,
    ),
    network=dict(
        type='CENUNetGenerator',  # U-Net-256
        norm_cfg=dict(type='CENIN', threshold=1e-2),  # theta of Eq. 4
    ),
    head=dict(type='ImageHead', loss=dict(type='mmagic.L1Loss', loss_weight=100.0)),
    discriminator=dict(
        type='mmagic.PatchDiscriminator',
        in_channels=6,  # input and output
        norm_cfg=dict(type='IN'),
    ),
    gan_loss=dict(type='mmagic.GANLoss', gan_type='vanilla'),
    test_cfg=dict(dropout=False),  # True: noise at test, as pix2pix and the official code
)
# several processes: each part is called, and wrapped, on its own
model_wrapper_cfg = dict(type='MMSeparateDistributedDataParallel')
