"""How it is measured: variants in turn in one process, memory in a process for each."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import MMLogger
from torch.profiler import ProfilerActivity, profile

from .workload import Variant, Workload

TASKS = ('train_step', 'inference')
MEMORY_METHOD = {
    'cpu': 'each variant in a process of its own; tensors: what is alive before the task, plus the '
    'peak of the allocations that torch.profiler records in it; process: highest resident set in '
    'two runs of the task, above that after building',
    'cuda': 'each variant in a process of its own; tensors: torch.cuda.max_memory_allocated; '
    'process: torch.cuda.max_memory_reserved',
}


def quiet() -> None:
    """Keep OpenMMLab from reporting each initialised weight, each learning rate, old functions."""
    MMLogger.get_current_instance().setLevel('WARNING')
    warnings.filterwarnings('ignore', message='``build_loss`` would be deprecated')


def stopwatch(work: Workload, clock: str) -> Callable[[], float]:
    """Seconds of the wall clock, or of this process on all cores: others' work is not counted."""
    read = time.perf_counter if clock == 'wall' else time.process_time

    def seconds() -> float:
        if work.device == 'cuda':
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
        variants: by name.
        task: one of :data:`TASKS`.
        runs: measured rounds.
        warmup: rounds before them.
        seconds: a stopwatch.
        advance: called after each run.

    Raises:
        ValueError: a loss or the logits are not finite; the figures would be of no use.
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
    """Ours / other, of the two runs of each round: noise of minutes touches both alike."""
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


def peak_memory(work: Workload, names: Sequence[str]) -> Iterator[tuple[str, dict]]:
    """Memory by variant and task, in bytes; one fresh process after the other."""
    os.environ['KINETO_LOG_LEVEL'] = '99'  # the profiler of the children announces itself otherwise
    # a server that has imported everything forks faster than a new process imports; CUDA forbids it
    forks = 'forkserver' in multiprocessing.get_all_start_methods() and work.device == 'cpu'
    context = multiprocessing.get_context('forkserver' if forks else 'spawn')
    for name in names:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            yield name, pool.submit(memory_of, work, name).result()


def memory_of(work: Workload, name: str) -> dict[str, dict[str, int | None]]:
    """Peak memory of both tasks of one variant, in this process."""
    quiet()
    variant = work.build(name)
    built = resident('VmRSS')
    result = {}
    for task in reversed(TASKS):  # inference first: a train step leaves the optimizer's state
        variant.prepare(task)
        if work.device == 'cuda':
            result[task] = on_cuda(variant, task)
        else:
            result[task] = on_cpu(variant, task, built)
    return result


def on_cpu(variant: Variant, task: str, built: int | None) -> dict[str, int | None]:
    """Peak memory of a task in bytes, see :data:`MEMORY_METHOD`; no ``process`` but on Linux."""
    if built is not None:
        Path('/proc/self/clear_refs').write_text('5')  # resets the high-water mark
    for _ in range(2):  # the second meets the optimizer's state
        variant.run(task)
    process = None if built is None else resident('VmHWM') - built
    alive = bytes_alive(variant)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        variant.run(task)
    return {'tensors': alive + highest(trace), 'alive': alive, 'process': process}


def on_cuda(variant: Variant, task: str) -> dict[str, int | None]:
    """Peak memory of a task in bytes, see :data:`MEMORY_METHOD`."""
    variant.run(task)  # the optimizer's state, cudnn's choice of algorithms
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    alive = torch.cuda.memory_allocated()
    variant.run(task)
    torch.cuda.synchronize()
    peak, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return {'tensors': peak, 'alive': alive, 'process': reserved}


def bytes_alive(variant: Variant) -> int:
    """What is there between two tasks: weights, statistics, the optimizer's state, inputs."""
    tensors = [*variant.model.parameters(), *variant.model.buffers(), variant.inputs]
    for state in variant.wrapper.optimizer.state.values():
        tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
    return sum(tensor.nbytes for tensor in tensors)


def resident(field: str) -> int | None:
    """A memory field of this process's status, in bytes; None where there is no Linux."""
    status = Path('/proc/self/status')
    if not status.exists():
        return None
    lines = status.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def highest(trace: profile) -> int:
    """Highest sum of allocated minus freed bytes in a recorded trace."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'trace.json')
        trace.export_chrome_trace(str(file))
        events = json.loads(file.read_text())['traceEvents']
    memory = [event for event in events if event['name'] == '[memory]']
    memory.sort(key=lambda event: event['ts'])
    sums = np.cumsum([event['args']['Bytes'] for event in memory])
    return int(sums.max(initial=0))
