"""Which process of a distributed training has stopped."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from threading import Thread

from torch import distributed as dist

TIMEOUT = 1800  # seconds that processes wait for one another; env_cfg.dist_cfg.timeout sets it
BEAT = 1.0  # seconds between two signs of life


def start_heartbeat() -> None:
    """Let this process give signs of life in the store that the launcher made for the job.

    They come from a thread, so that a long step is no silence, and a stopped process is.
    """
    rank, store = dist.get_rank(), _connect()

    def beat() -> None:
        count = 0
        while True:
            count += 1
            try:
                store.set(f'mmcen/alive/{rank}', str(count))
            except RuntimeError:  # the launcher has ended
                return
            time.sleep(BEAT)

    Thread(target=beat, daemon=True).start()


def stopped_ranks() -> list[int]:
    """Find the processes that give no sign of life."""
    store = _connect()
    keys = [f'mmcen/alive/{rank}' for rank in range(dist.get_world_size())]

    def counts() -> list[bytes]:
        return [store.get(key) if store.check([key]) else b'' for key in keys]

    before = counts()
    time.sleep(5 * BEAT)
    return [rank for rank, (a, b) in enumerate(zip(before, counts(), strict=True)) if a == b]


def _connect() -> dist.TCPStore:
    place = os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])
    return dist.TCPStore(*place, is_master=False, timeout=timedelta(seconds=10))
