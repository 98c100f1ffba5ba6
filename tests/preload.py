"""What the processes of tests/command.py have imported when they start."""

import contextlib

import mmseg.apis  # noqa: F401
import torch.distributed  # noqa: F401

import mmcen

mmcen.register()
with contextlib.suppress(ImportError):
    import mmagic.models  # noqa: F401
