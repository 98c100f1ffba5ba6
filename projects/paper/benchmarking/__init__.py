"""Parts of ``projects/paper/benchmark.py``."""
