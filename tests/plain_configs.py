"""Configs are written as they are.

yapf lays the text of one out in a second, three times for each runner.
test_dumped_configs.py has yapf.
"""

from mmengine.config import config


def _as_it_is(text, **_):
    compile(text, 'config.py', 'exec')  # what is no Python is refused, as by yapf
    return text, True


config.FormatCode = _as_it_is
