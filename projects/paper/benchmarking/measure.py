"""Times: variants in turn in one process, and what is computed from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from .workload import Variant


def stopwatch(device: str, clock: str) -> Callable[[], float]:
    """Seconds of the wall clock, or of this process on all cores: others' work is not counted."""
    read = time.perf_counter if clock == 'wall' else time.process_time

    def seconds() -> float:
        if device == 'cuda':
            torch.cuda.synchronize()
        return read()

    return seconds


def time_in_turn(
    variants: dict[str, Variant],
    task: str,
    runs: int,
    warmup: int,
    seconds: Callable[[], float],
    advance: Callable[[], None],
) -> dict[str, list[float]]:
    """Seconds of each run of a task by variant; runs alternate, A B C A B C.

    Args:
        variants: By name.
        task: One of :data:`TASKS`.
        runs: Measured rounds.
        warmup: Rounds before them.
        seconds: A stopwatch.
        advance: Called after each run.

    Raises:
        ValueError: If a loss or the logits are not finite, because the figures would be useless.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for variant in variants.values():
        variant.prepare(task)
    for turn in range(warmup + runs):
        for name, variant in variants.items():
            start = seconds()
            result = variant.run(task)
            taken = seconds() - start
            if not torch.isfinite(result).all():
                raise ValueError(
                    f'{task} of {name} is not finite in round {turn + 1}: lower the learning rate, '
                    'for example --cfg-options optim_wrapper.optimizer.lr=1e-6'
                )
            if turn >= warmup:
                times[name].append(taken)
            advance()
    return times


def summary(seconds: Sequence[float]) -> dict[str, float | list[float]]:
    """Median, 95th percentile and all times, in seconds."""
    median, p95 = np.percentile(seconds, (50, 95))
    return {'median': float(median), 'p95': float(p95), 'times': list(seconds)}


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Median, first and third quartile."""
    q1, median, q3 = np.percentile(values, (25, 50, 75))
    return {'q1': float(q1), 'median': float(median), 'q3': float(q3)}


def ratios(ours: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """Return ours / other of the two runs of each round, which have the same slow noise."""
    return quartiles([a / b for a, b in zip(ours, others, strict=True)])


def added(more: dict, less: dict) -> dict:
    """What a stream adds: seconds, round by round, and bytes of tensors."""
    seconds = [a - b for a, b in zip(more['times'], less['times'], strict=True)]
    extra = more['memory']['tensors'] - less['memory']['tensors']
    return {'added': quartiles(seconds), 'added_memory': extra}


def difference(ours: Variant, other: Variant) -> float:
    """Largest difference of the logits of two variants, relative to the largest logit."""
    results = []
    for variant in (ours, other):
        variant.prepare('inference')
        results.append(variant.run('inference').float())
    return ((results[0] - results[1]).abs().max() / results[0].abs().max()).item()
