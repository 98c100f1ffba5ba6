"""Parts of ``projects/paper/gpu_day.py``: what is measured on a GPU that is there for minutes."""
