# For images of 64 to 128 pixels and two CPU cores: a narrower and shallower U-Net.
_base_ = './cen_pix2pix.py'
model = dict(
    network=dict(downs=6, base_channels=24),
    discriminator=dict(base_channels=16, num_conv=2),
)
