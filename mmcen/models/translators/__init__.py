"""Image translation with discriminators."""

from .cen_translator import CENTranslator

__all__ = ['CENTranslator']
