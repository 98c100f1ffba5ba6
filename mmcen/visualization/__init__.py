from .sheet import prediction_sheet

__all__ = ['prediction_sheet']
