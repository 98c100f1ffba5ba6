"""Where runs live on disk: one folder each, named after what it trains.

The name ends with a hash of the config, so that rows of different tables that are the same training
(CEN of Tables 1, 2 and 3) share one, and other epochs or options make another.
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
        cfg: What is trained in it.
    """

    path: Path
    cfg: Config

    @property
    def result(self) -> dict[str, Any] | None:
        """What was measured, None before it is finished."""
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
        """The last words of a run that failed."""
        return (self.path / FAILED).read_text()

    def prepare(self) -> None:
        """Make the folder with its config, for ``tools/train.py`` as well."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / FAILED).unlink(missing_ok=True)
        write(self.path / 'config.py', self.cfg.pretty_text)

    def fail(self, why: str) -> None:
        write(self.path / FAILED, why)


def folder(work_dir: Path, name: str, cfg: Config) -> Folder:
    """The folder of a config below ``work_dir``; an existing one with the same hash serves."""
    tag = hashlib.sha256(cfg.pretty_text.encode()).hexdigest()[:10]
    found = sorted(work_dir.glob(f'*-{tag}'))
    return Folder(found[0] if found else work_dir / f'{name}-{tag}', cfg)


def commit() -> str:
    """Of this clone, for the record."""
    command = ['git', 'describe', '--always', '--dirty']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or 'unknown'
