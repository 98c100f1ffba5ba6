"""What works here, and what a config will train: ``python -m mmcen.doctor [CONFIG]``."""
