"""Converters' processes: what forked children inherit from a parent with threads."""

import subprocess
import sys

from tests.training import ROOT

CODE = """
import cv2
import numpy as np
from rich.console import Console

from mmcen.converters.processes import run_in_processes

def work(number):
    cv2.cvtColor(np.zeros((300, 300, 3), np.uint8), cv2.COLOR_BGR2Lab)

cv2.setNumThreads(4)
cv2.cvtColor(np.zeros((3000, 3000, 3), np.uint8), cv2.COLOR_BGR2Lab)
run_in_processes(work, [1, 2, 3], 2, Console())
print(cv2.getNumThreads())
"""


def test_after_threads_of_opencv():
    """Children that wait for threads which only their parent has would never end."""
    run = subprocess.run(
        [sys.executable, '-c', CODE], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-1] == '4'
