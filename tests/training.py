"""Training by the command line, in one process or several, which a hook may kill."""

import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
ENV = {**os.environ, 'OMP_NUM_THREADS': '1'}
KILLER = """
import os, signal
from pathlib import Path
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class KillOnce(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 4 and Path('kill').exists():  # in the middle of the second epoch
            Path('kill').unlink()
            os.kill(os.getpid(), signal.SIGKILL)
"""


def train(folder, *args, processes=1, check=True):
    """tools/train.py in ``folder``, under torchrun if there are several processes."""
    command = [sys.executable]
    if processes > 1:
        command += ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}']
        args = (*args, '--launcher', 'pytorch')
    run = subprocess.run(
        [*command, str(ROOT / 'tools' / 'train.py'), *args],
        cwd=folder,
        env={**ENV, 'PYTHONPATH': str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not check or run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return run


def load(path):
    return torch.load(path, map_location='cpu', weights_only=True)
