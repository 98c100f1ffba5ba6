from .cen_unet import CENUNetGenerator

__all__ = ['CENUNetGenerator']
