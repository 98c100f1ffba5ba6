#!/usr/bin/env python
"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT``."""

import sys
from pathlib import Path

# A clone runs without being installed, and runs its own package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmcen.cli.test import main

if __name__ == '__main__':
    main(prog='test.py')
