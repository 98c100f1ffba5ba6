"""Prediction on files."""

from .inferencer import CENInferencer
from .results import Prediction

__all__ = ['CENInferencer', 'Prediction']
