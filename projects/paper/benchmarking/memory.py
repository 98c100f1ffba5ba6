"""Measure the peak memory of each variant in a separate process."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from .workload import TASKS, Variant, Workload, quiet

METHOD = {
    'cpu': 'each variant in a separate process; tensors: memory in use before the task, plus the '
    'peak of the allocations that torch.profiler records in it; process: highest resident set in '
    'two runs of the task, above that after building',
    'cuda': 'each variant in a separate process; tensors: torch.cuda.max_memory_allocated; '
    'process: torch.cuda.max_memory_reserved',
}


def peak_memory(work: Workload, names: Sequence[str]) -> Iterator[tuple[str, dict]]:
    """Memory by variant and task, in bytes; one fresh process after the other.

    Raises:
        RuntimeError: Such a process ended early, as when the machine has too little memory.
    """
    os.environ['KINETO_LOG_LEVEL'] = '99'  # the profiler of the children announces itself otherwise
    # a server that has imported everything forks faster than a new process imports; CUDA forbids it
    forks = 'forkserver' in multiprocessing.get_all_start_methods() and work.device == 'cpu'
    context = multiprocessing.get_context('forkserver' if forks else 'spawn')
    for name in names:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=send_memory, args=(work, name, sender), daemon=True)
        process.start()
        sender.close()
        try:
            result = receiver.recv()
        except EOFError:
            process.join()
            raise RuntimeError(
                f'the process that measured the memory of {name} ended with {process.exitcode}: '
                'if it was killed because memory ran out, try a smaller --batch or --shape'
            ) from None
        process.join()
        yield name, result


def send_memory(work: Workload, name: str, sender: Connection) -> None:
    """What such a process does."""
    sender.send(memory_of(work, name))


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
    """Peak memory of a task in bytes, see :data:`METHOD`; no ``process`` but on Linux."""
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
    """Peak memory of a task in bytes, see :data:`METHOD`."""
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
    tensors = [*variant.model.parameters(), *variant.model.buffers(), *variant.inputs]
    states = [s for optimizer in variant.optimizers for s in optimizer.state.values()]
    for state in states:
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
