"""Folders of runs on disk, named after the training.

The name ends with a hash of the config. Rows of different tables with the same training (CEN of
Tables 1, 2 and 3) share a folder; other epochs or options have another one.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmcen.files import write

ROOT = Path(__file__).resolve().parents[2]
RESULT, FAILED, LOG, ERRORS = 'result.json', 'failed.txt', 'log.txt', 'errors.txt'


@dataclass(frozen=True)
class Folder:
    """The folder of one training.

    Args:
        path: Path of the folder.
        cfg: Config of the training.
    """

    path: Path
    cfg: Config

    @property
    def result(self) -> dict[str, Any] | None:
        """Measured figures; None before the run is finished."""
        file = self.path / RESULT
        return json.loads(file.read_text()) if file.exists() else None

    @property
    def state(self) -> str:
        """'finished', 'failed', 'half-finished' (resumes from its last checkpoint) or 'not run'."""
        if (self.path / RESULT).exists():
            return 'finished'
        if (self.path / FAILED).exists():
            return 'failed'
        return 'half-finished' if (self.path / 'last_checkpoint').exists() else 'not run'

    @property
    def why(self) -> str:
        """Error of a run that failed."""
        return (self.path / FAILED).read_text()

    def prepare(self) -> None:
        """Make the folder with its config, for ``tools/train.py`` as well."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / FAILED).unlink(missing_ok=True)
        write(self.path / 'config.py', self.cfg.pretty_text)

    def fail(self, why: str) -> None:
        write(self.path / FAILED, why)


def folder(work_dir: Path, name: str, cfg: Config) -> Folder:
    """Return the folder of a config below ``work_dir``, an existing one with its hash if any."""
    tag = hashlib.sha256(cfg.pretty_text.encode()).hexdigest()[:10]
    found = sorted(work_dir.glob(f'*-{tag}'))
    return Folder(found[0] if found else work_dir / f'{name}-{tag}', cfg)


def commit() -> str:
    """Return the commit of this clone, for records."""
    command = ['git', 'describe', '--always', '--dirty']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or 'unknown'
