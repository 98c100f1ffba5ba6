"""Configs and trained models that come with the package."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CLONE = PACKAGE.parent
DEFAULT_MODEL = 'nyuv2-efflite0'
INT8_MODEL = f'{DEFAULT_MODEL}-int8'
CONFIG_OF = dict.fromkeys((DEFAULT_MODEL, INT8_MODEL), 'nyud_lwrefinenet_efflite0_shipped.py')


def shipped_config(name: str) -> Path:
    """Find a config of this clone or of the installed wheel."""
    clone = CLONE / 'configs' / 'cen' / name
    return clone if clone.is_file() else PACKAGE / '.mim' / 'configs' / 'cen' / name


def shipped_model(name: str) -> tuple[Path, Path]:
    """Find config and weights, or ONNX file, of a model by its name, a key of ``CONFIG_OF``."""
    suffix = 'onnx' if name == INT8_MODEL else 'safetensors'
    return shipped_config(CONFIG_OF[name]), PACKAGE / 'weights' / f'{name}.{suffix}'
