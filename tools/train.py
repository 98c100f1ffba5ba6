#!/usr/bin/env python
"""Train a model: ``python tools/train.py CONFIG``."""

import sys
from pathlib import Path

# A clone runs without being installed, and runs its own package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmcen.cli.train import main

if __name__ == '__main__':
    main(prog='train.py')
