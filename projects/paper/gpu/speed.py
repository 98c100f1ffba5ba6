"""Speed on a GPU: ``python -m projects.paper.gpu.speed JOB`` (JSON) prints a JSON line a figure.

The lines come in order of worth; whoever started it ends it when the time is over. Variants of a
model alternate, in one process. Data and weights are random.

Job: ``device``, ``shape``, ``batch``, ``rounds``, ``warmup`` (rounds before them), ``matrix``
(side of the product that measures the peak), ``models`` (of
:data:`CONFIGS`, or null for all).
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mmcen.core import exchange_norms
from projects.paper.benchmarking import measure, memory
from projects.paper.benchmarking.translation import TranslationWorkload
from projects.paper.benchmarking.workload import OURS, TASKS, Variant, Workload, quiet
from projects.paper.gpu.waits import count_waits

ROOT = Path(__file__).resolve().parents[3]
CEN = ROOT / 'configs' / 'cen'
OWN = ROOT / 'projects' / 'paper' / 'configs'
CONFIGS = {
    'EfficientNet-Lite0': CEN / 'nyud_lwrefinenet_efflite0.py',
    'RefineNet R50': CEN / 'nyud_refinenet_r50.py',
    'RefineNet R101': CEN / 'nyud_refinenet_r101.py',
    'SegFormer-B0': OWN / 'gpu_segformer_b0.py',
    'U-Net': OWN / 'gpu_unet.py',
    'RefineNet R152': CEN / 'nyud_refinenet_r152.py',
}
TRANSLATION = CEN / 'taskonomy_shade-texture_to_rgb.py'
ADDED = 'EfficientNet-Lite0'  # the model whose cost by stream is measured, up to STREAMS
STREAMS = 4
UNET_SIZE = 256
Figures = dict[str, Any]


class Generator:
    """A U-Net of two streams: forward, L1, backward and Adam, with the interface of a variant."""

    def __init__(self, work: Workload, model: torch.nn.Module) -> None:
        self.work, self.model = work, model
        generator = torch.Generator().manual_seed(0)
        side = min(UNET_SIZE, 4 * work.shape[0])
        x = torch.rand(work.batch, 2, 3, side, side, generator=generator)
        self.x = x.to(work.device)
        self.inputs = [self.x]
        self.optimizers = [torch.optim.Adam(model.parameters(), 2e-4, (0.5, 0.999))]

    def prepare(self, task: str) -> None:
        self.model.train(task == 'train_step')

    def run(self, task: str) -> Tensor:
        if task == 'inference':
            with torch.no_grad(), self.work.autocast():
                return self.model(self.x)[0]
        with self.work.autocast():
            (y,) = self.model(self.x)
            loss = (y.float() - self.x).abs().mean()
        self.optimizers[0].zero_grad()
        loss.backward()
        self.optimizers[0].step()
        return loss.detach()


class Bench:
    """Figures of one model.

    Args:
        name: One of :data:`CONFIGS`.
        job: See the module.
        peaks: Measured FLOP/s of matrix products by precision.
    """

    def __init__(self, name: str, job: dict[str, Any], peaks: dict[str, float]) -> None:
        self.name, self.job, self.peaks = name, job, peaks
        self.models: dict[str, torch.nn.Module] = {}

    @cached_property
    def work(self) -> Workload:
        return self._work(Config.fromfile(CONFIGS[self.name]), self.fast)

    @property
    def fast(self) -> str:
        """The faster precision: many CPUs have no bfloat16. On a GPU fp32 multiplies in TF32."""
        return 'bf16' if self.job['device'] == 'cuda' else 'fp32'

    def _work(self, cfg: Config, precision: str, kind: type[Workload] = Workload) -> Workload:
        job = self.job
        return kind(cfg, tuple(job['shape']), job['batch'], job['device'], precision, True, 1)

    def variants(self, precision: str, names: tuple[str, ...]) -> dict[str, Any]:
        """Variants of one model at a precision; models are built once."""
        work = replace(self.work, precision=precision)
        return {name: self._variant(work, name) for name in names}

    def _variant(self, work: Workload, name: str) -> Any:
        if self.name == 'U-Net':
            return Generator(work, self._unet(name))
        if name not in self.models:
            self.models[name] = work.build(name).model
        streams = self.models[name] if name != 'list_of_streams' else self.models[OURS]
        inputs, samples = work.random_batch(streams)
        return Variant(work, self.models[name], inputs, samples)

    def _unet(self, name: str) -> torch.nn.Module:
        if name not in self.models:
            init_default_scope('mmseg')
            torch.manual_seed(0)
            model = MODELS.build(deepcopy(self.work.cfg.model))
            model.init_weights()
            for _, norm in list(exchange_norms(model)):
                norm.exchange = name == OURS
            self.models[name] = model.to(self.job['device'])
        return self.models[name]

    def times(self, precision: str, names: tuple[str, ...]) -> Iterator[Figures]:
        """Medians, ratios ours / other, memory and share of the peak, by task."""
        variants = self.variants(precision, names)
        for task in TASKS:
            seconds = self._in_turn(variants, task)
            for name, own in seconds.items():
                yield {
                    'figure': 'time', 'model': self.name, 'task': task, 'precision': precision,
                    'variant': name, 'batch': self.job['batch'], 'shape': self.job['shape'],
                    'ms': 1000 * measure.quartiles(own)['median'],
                    'ours_to_this': measure.ratios(seconds[OURS], own)['median'],
                    'gib': self._peak(variants[name], task) / 2**30,
                    **self._roofline(variants[name], name, task, own),
                }  # fmt: skip

    def _in_turn(self, variants: dict[str, Any], task: str) -> dict[str, list[float]]:
        clock = measure.stopwatch(self.job['device'], 'wall')
        return measure.time_in_turn(
            variants, task, self.job['rounds'], self.job['warmup'], clock, advance=lambda: None
        )

    def _peak(self, variant: Any, task: str) -> int:
        """Highest memory of a task in bytes, without that of the other variants."""
        variant.prepare(task)
        own = memory.bytes_alive(variant)
        if self.job['device'] != 'cuda':
            return own
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        variant.run(task)
        torch.cuda.synchronize()
        return own + torch.cuda.max_memory_allocated() - before

    def _roofline(
        self, variant: Any, name: str, task: str, seconds: list[float]
    ) -> dict[str, float]:
        """FLOP/s of ours, as they are and as a share of the measured peak."""
        if name != OURS:
            return {}
        with FlopCounterMode(display=False) as counter:
            variant.run(task)
        rate = counter.get_total_flops() / measure.quartiles(seconds)['median']
        return {'tflops': rate / 1e12, 'share_of_peak': rate / self.peaks[variant.work.precision]}

    def waits(self) -> Iterator[Figures]:
        """What makes the host wait inside a step, with exchange and without."""
        for name, variant in self.variants(self.fast, (OURS, 'exchange_off')).items():
            variant.prepare('train_step')
            for _ in range(2):
                variant.run('train_step')
            found = count_waits(lambda variant=variant: variant.run('train_step'))
            yield {'figure': 'waits', 'model': self.name, 'variant': name, 'found': found}

    def added_streams(self) -> Iterator[Figures]:
        names = [f'streams={m}' for m in range(1, STREAMS + 1)]
        variants = {name: self.work.build(name) for name in names}
        seconds = self._in_turn(variants, 'train_step')
        for name, own in seconds.items():
            yield {
                'figure': 'streams', 'model': self.name, 'variant': name,
                'ms': 1000 * measure.quartiles(own)['median'],
                'gib': self._peak(variants[name], 'train_step') / 2**30,
                'to_one_stream': measure.ratios(own, seconds[names[0]])['median'],
            }  # fmt: skip

    def frames_per_second(self) -> Iterator[Figures]:
        """One frame at a time, on a GPU in bfloat16: eager, and as a CUDA graph."""
        work = replace(self.work, batch=1)
        dtype = torch.bfloat16 if self.fast == 'bf16' else torch.float32
        model = deepcopy(self.models[OURS]).eval().to(dtype)
        inputs, samples = work.random_batch(model)
        inputs, metas = inputs.to(dtype), [sample.metainfo for sample in samples]

        @torch.no_grad()
        def run() -> Tensor:
            return model.encode_decode(inputs, metas)

        calls: dict[str, Callable[[], Any]] = {'eager': run}
        if self.job['device'] == 'cuda':
            calls['CUDA graph'] = captured(run)
        for name, call in calls.items():
            yield {'figure': 'fps', 'model': self.name, 'variant': name,
                   'shape': self.job['shape'], 'fps': 1 / self._median(call)}  # fmt: skip

    def _median(self, call: Callable[[], Any]) -> float:
        clock = measure.stopwatch(self.job['device'], 'wall')
        times = []
        warmup = self.job['warmup']
        for _ in range(warmup + 3 * self.job['rounds']):
            start = clock()
            call()
            times.append(clock() - start)
        return measure.quartiles(times[warmup:])['median']

    def compiled(self) -> Iterator[Figures]:
        """A training step of the compiled model, with exchange and without, against eager mode."""
        plain = self.variants(self.fast, (OURS,))
        for name in (OURS, 'exchange_off'):
            model = self.work.build(name).model
            model.backbone.compile()
            model.decode_head.compile()
            self.models[f'{name}, compiled'] = model
        start = time.perf_counter()
        names = (f'{OURS}, compiled', 'exchange_off, compiled')
        variants = {**plain, **self.variants(self.fast, names)}
        seconds = self._in_turn(variants, 'train_step')
        for name, own in seconds.items():
            yield {
                'figure': 'compiled', 'model': self.name, 'variant': name,
                'ms': 1000 * measure.quartiles(own)['median'],
                'ours_to_this': measure.ratios(seconds[OURS], own)['median'],
                'with_compiling_s': time.perf_counter() - start,
            }  # fmt: skip


def captured(run: Callable[[], Tensor]) -> Callable[[], None]:
    """A call as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def matrix_peaks(device: str, side: int) -> dict[str, float]:
    """FLOP/s of a product of random square matrices."""
    clock = measure.stopwatch(device, 'wall')
    peaks = {}
    for precision, dtype in (('bf16', torch.bfloat16), ('fp32', torch.float32)):
        a, b = torch.randn(2, side, side, device=device).to(dtype)
        times = []
        for _ in range(8):
            start = clock()
            a @ b
            times.append(clock() - start)
        peaks[precision] = 2 * side**3 / min(times)
    return peaks


def official_step(job: dict[str, Any]) -> Iterator[Figures]:
    """A step of image translation against the official code's: needs mmagic."""
    if find_spec('mmagic') is None:
        yield {'figure': 'official_step', 'left_out': 'mmagic is not installed'}
        return
    bench = Bench('U-Net', job, {})
    side = (min(UNET_SIZE, 4 * job['shape'][0]),) * 2
    work = bench._work(Config.fromfile(TRANSLATION), 'fp32', TranslationWorkload)
    work = replace(work, shape=side)
    variants = {name: work.build(name) for name in (OURS, 'list_of_streams', 'list_detached')}
    seconds = bench._in_turn(variants, 'train_step')
    for name, own in seconds.items():
        ratio = measure.ratios(seconds[OURS], own)['median']
        yield {'figure': 'official_step', 'variant': name, 'ours_to_this': ratio,
               'ms': 1000 * measure.quartiles(own)['median']}  # fmt: skip


def rivals(name: str) -> tuple[str, ...]:
    """What a model is measured against."""
    listed = ('list_of_streams',) if name.startswith('RefineNet') else ()
    return (OURS, 'exchange_off', *listed)


def plan(job: dict[str, Any]) -> Iterator[tuple[str, Callable[[], Iterator[Figures]]]]:
    """What is measured, in order of worth."""
    peaks = matrix_peaks(job['device'], job['matrix'])
    yield 'peak', lambda: iter([{'figure': 'peak', **peaks}])
    compiles = []
    for name in job['models'] or CONFIGS:
        bench = Bench(name, job, peaks)
        for precision in dict.fromkeys((bench.fast, 'fp32')):
            yield name, lambda p=precision, n=name, b=bench: b.times(p, rivals(n))
        if name != 'U-Net':
            yield name, bench.waits
            yield name, bench.frames_per_second
        if name == ADDED:
            yield name, bench.added_streams
            compiles.append(bench)
        else:
            bench.models.clear()
    yield 'official step', lambda: official_step(job)
    for bench in compiles:
        yield bench.name, bench.compiled


def main(job: dict[str, Any]) -> None:
    quiet()
    warnings.filterwarnings('ignore')
    if job['device'] == 'cuda':
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision('high')
    for name, measured in plan(job):
        try:
            for figures in measured():
                print(json.dumps(figures), flush=True)
        except Exception as error:  # one figure that fails must not cost the others
            said = f'{type(error).__name__}: {error}'[:500]
            print(json.dumps({'figure': 'failed', 'model': name, 'error': said}), flush=True)


if __name__ == '__main__':
    main(json.loads(sys.argv[1]))
