"""Checks of an environment and of a config: ``mmcen doctor [CONFIG]``."""
