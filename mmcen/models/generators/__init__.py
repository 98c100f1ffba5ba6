"""Generators for image translation."""

from .cen_unet import CENUNetGenerator

__all__ = ['CENUNetGenerator']
