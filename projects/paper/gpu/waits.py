"""Proof that a step does not make the host wait for the GPU: what a profile of it contains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

# Of the CUDA runtime: the host waits until the device is done.
WAITS = ('cudaStreamSynchronize', 'cudaDeviceSynchronize', 'cudaEventSynchronize', 'cudaMemcpy')
# Operators that copy a value of the device to the host. On a CPU they show where a GPU would wait.
ASKS = ('aten::_local_scalar_dense', 'aten::nonzero', 'aten::masked_select')
MARK = 'one_step'


def count_waits(step: Callable[[], object]) -> dict[str, int]:
    """Run a step once under the profiler, and count what waits inside it, in all threads.

    Args:
        step: What to run; run it before, so that nothing is set up here.

    Returns:
        Counts by name, of :data:`WAITS` and :data:`ASKS`; names that do not occur are left out.
    """
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
        torch.cuda.synchronize()
    with profile(activities=activities) as trace:
        with record_function(MARK):
            step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    # of the host: the device has a copy of the mark, which ends later
    events = [event for event in trace.events() if event.device_type == DeviceType.CPU]
    span = next(event.time_range for event in events if event.name == MARK)
    inside = (e.name for e in events if span.start <= e.time_range.start < span.end)
    return dict(Counter(name for name in inside if name in (*WAITS, *ASKS)))
