from .prediction_sheet import prediction_sheet
from .translation_sheet import translation_sheet

__all__ = ['prediction_sheet', 'translation_sheet']
