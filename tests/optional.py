"""Skips where an optional package is missing."""

from importlib.util import find_spec

import pytest


def need_mmagic() -> None:
    """Skip a test, or the module that calls this; mmagic is not imported.

    Its import takes seconds, and beside the OneDL forks ``mmcen`` has to do it.
    """
    if find_spec('mmagic') is None:
        pytest.skip('image translation needs mmagic', allow_module_level=True)
