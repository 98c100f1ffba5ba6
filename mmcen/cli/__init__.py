"""The console script ``mmcen``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from .. import register
from ..shipped import CLONE
from .common import exit_status, reader_has_left

COMMANDS = {
    'demo': 'train and evaluate a small CEN on rendered rooms: no data needed',
    'train': 'train the model of a config',
    'test': 'evaluate a checkpoint',
    'predict': 'predict on your own files or folders',
    'export': 'write a trained model for ONNX Runtime, checked against PyTorch',
    'convert-data': 'convert original archives and official checkpoints',
    'doctor': 'report what works here, or what a config will train',
    'report': 'write an HTML page about a training',
    'page': 'try a model in the browser',
}
HELP = '\n'.join(
    [
        'usage: mmcen COMMAND [ARGUMENTS]',
        '',
        'Channel Exchanging Networks for any set of modalities and tasks.',
        '',
        *(f'  {name:14}{what}' for name, what in COMMANDS.items()),
        '',
        '`mmcen COMMAND --help` explains a command; `python -m mmcen` does the same.',
    ]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    try:
        return _main(argv)
    except BrokenPipeError:  # as below, with unbuffered output
        return 0
    finally:
        reader_has_left()


def _main(argv: Sequence[str] | None) -> int:
    name, *rest = (sys.argv[1:] if argv is None else argv) or ['--help']
    if name in ('-h', '--help'):
        print(HELP)
        return 0
    if name not in COMMANDS:
        known = ', '.join(COMMANDS)
        print(f"mmcen: error: there is no command '{name}': choose from {known}", file=sys.stderr)
        return 2
    return exit_status(lambda: _run(name, rest))


def _run(name: str, argv: Sequence[str]) -> int | None:
    if (CLONE / 'projects').is_dir():  # configs may import modules of projects/
        sys.path.append(str(CLONE))
    if name != 'doctor':  # it also examines environments in which registering fails
        register()
    return importlib.import_module(f'.{name.replace("-", "_")}', __name__).main(argv)
