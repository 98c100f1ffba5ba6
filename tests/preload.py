"""What the processes of tests/command.py have imported when they start."""

import contextlib
import gc

import torch.distributed  # noqa: F401

import mmcen
import tests.plain_configs  # noqa: F401
from mmcen.models.translators.cen_translator import import_mmagic

mmcen.register()
import mmseg.apis  # noqa: E402, F401  mmcen lets it import without compiled mmcv

with contextlib.suppress(ImportError):
    import_mmagic()

gc.freeze()  # what collection does not visit, a forked process does not copy
