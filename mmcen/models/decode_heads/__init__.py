"""Decode heads."""

from .refinenet_head import RefineNetHead

__all__ = ['RefineNetHead']
