"""Find the process of a distributed training that has stopped."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from threading import Thread

from torch import distributed as dist

TIMEOUT = 1800  # seconds that processes wait for each other; env_cfg.dist_cfg.timeout sets it
BEAT = 1.0  # seconds between two signals


def start_heartbeat() -> None:
    """Send regular signals of this process to the store that the launcher made for the job.

    A thread sends them, so they continue during a long step, but not in a stopped process.
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
    """Return the processes that send no signal."""
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
