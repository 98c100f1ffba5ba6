"""Original archives and official checkpoints to ours: ``mmcen convert-data``."""
