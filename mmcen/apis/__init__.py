"""Prediction on files."""

from .inferencer import CENInferencer, Prediction

__all__ = ['CENInferencer', 'Prediction']
