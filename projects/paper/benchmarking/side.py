"""Measure one commit of the repository: run by path, ``python side.py JOB``, JOB in JSON.

:mod:`projects.paper.benchmarking.against` runs this file of its own clone for both commits, each in
separate processes. Therefore it uses only parts that all commits have: configs, registries,
``train_step``, ``test_step`` and metrics; and ``attach`` of SparsityHook, where there is one. The
last line of standard output is the result in JSON.

Job: ``tree`` (root of the commit), ``config``, ``cfg_options``, ``task`` (``train_step`` or
``test_frame``), ``shape``, ``ori_size``, ``batch``, ``warmup``, ``steps``, ``threads``, ``device``,
``precision``, ``channels_last``, ``clock``.
"""

import json
import resource
import sys
import time
import warnings
from contextlib import nullcontext
from pathlib import Path

SEED = 0
SMALL_SHARE = 0.3  # of the scaling factors of every exchanging norm, below its threshold


def main(job):
    # Not the folder of this file, whose modules belong to another commit.
    sys.path[0] = job['tree']
    import torch
    from mmengine.logging import MMLogger

    import mmcen

    if not Path(mmcen.__file__).is_relative_to(job['tree']):
        raise RuntimeError(f'mmcen comes from {mmcen.__file__}, not from {job["tree"]}')
    MMLogger.get_current_instance().setLevel('ERROR')
    warnings.filterwarnings('ignore')
    torch.set_num_threads(job['threads'])
    torch.manual_seed(SEED)
    cfg, model = build(job)
    run = {'train_step': train_step, 'test_frame': test_frame}[job['task']](job, cfg, model)
    times = measure(job, run)
    print(json.dumps({'times': times, 'memory': peak(job['device'])}))


def build(job):
    """The config and its model, with random weights and channels to exchange."""
    import torch
    from mmengine.config import Config
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import MODELS, init_default_scope

    cfg = Config.fromfile(job['config'])
    cfg.merge_from_dict(job['cfg_options'])
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    forget_pretrained(cfg.model)
    if job['task'] == 'train_step' and cfg.model.get('data_preprocessor', {}).get('size'):
        cfg.model.data_preprocessor.size = tuple(job['shape'])  # else it pads to the config's
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    model.init_weights()
    draw_gammas(model)
    layout = torch.channels_last if job['channels_last'] else torch.preserve_format
    return cfg, model.to(job['device'], memory_format=layout)


def forget_pretrained(cfg):
    """Drop what would load weights."""
    if isinstance(cfg, dict):
        for key, value in cfg.items():
            loads = isinstance(value, dict) and value.get('type') == 'Pretrained'
            if key == 'pretrained' or (key == 'init_cfg' and loads):
                cfg[key] = None
            else:
                forget_pretrained(value)
    elif isinstance(cfg, (list, tuple)):
        for value in cfg:
            forget_pretrained(value)


def draw_gammas(model):
    """Random scaling factors, of which some make channels be exchanged."""
    import torch

    for norm in model.modules():
        weight, threshold = getattr(norm, 'weight', None), getattr(norm, 'threshold', None)
        if threshold is None or not isinstance(weight, torch.nn.Parameter):
            continue
        draw = torch.rand(2, len(weight))
        gamma = 0.1 + 0.4 * draw[0]
        if getattr(norm, 'exchanges', True):
            gamma = torch.where(draw[1] < SMALL_SHARE, threshold * (draw[0] - 0.5), gamma)
        weight.data.copy_(gamma)


def train_step(job, cfg, model):
    """All of a step, from the preprocessor to the optimizer."""
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import HOOKS

    wrapper = build_optim_wrapper(model, at_precision(cfg.optim_wrapper, job['precision']))
    parts = list(wrapper.values()) if hasattr(wrapper, 'values') else [wrapper]
    for hook in cfg.get('custom_hooks') or []:
        if hook['type'] == 'SparsityHook' and hasattr(penalty := HOOKS.build(hook), 'attach'):
            penalty.attach(model, *(part.optimizer for part in parts))
    model.train()
    data = make_data(cfg, model, job['batch'], job['shape'], job['shape'], job['device'])
    return lambda: model.train_step(fresh(data), wrapper)


def at_precision(cfg, precision):
    """The config of one or several optim wrappers that take a step of the optimizer each time."""
    if 'optimizer' in cfg:
        for key in ('loss_scale', 'dtype', 'use_fp64', 'accumulative_counts', 'enabled'):
            cfg.pop(key, None)
        cfg.type = 'BFloat16OptimWrapper' if precision == 'bf16' else 'OptimWrapper'
        return cfg
    for part in cfg.values():
        if isinstance(part, dict) and 'optimizer' in part:
            at_precision(part, precision)
    return cfg


def test_frame(job, cfg, model):
    """Prediction of a frame and what the metrics make of it."""
    import torch
    from mmengine.evaluator import Evaluator
    from mmengine.registry import METRICS
    from mmengine.runner import autocast

    found = cfg.get('val_evaluator') or []
    found = found if isinstance(found, (list, tuple)) else [found]
    evaluator = Evaluator([METRICS.build(without_features(dict(metric))) for metric in found])
    evaluator.dataset_meta = {'classes': [str(k) for k in range(classes_of(model))]}
    model.eval()
    data = make_data(cfg, model, 1, job['shape'], job['ori_size'], job['device'])
    bf16 = job['precision'] == 'bf16'

    @torch.no_grad()
    def run():
        batch = fresh(data)
        with autocast(dtype=torch.bfloat16) if bf16 else nullcontext():
            samples = model.test_step(batch)
        evaluator.process(samples, batch)
        return {}

    return run


def without_features(metric):
    """Leave FID and KID out of a TranslationMetric: they need the weights of Inception."""
    if isinstance(metric.get('metrics'), dict):
        metric['metrics'] = {
            task: [name for name in names if name not in ('FID', 'KID')] or ['MAE']
            for task, names in metric['metrics'].items()
        }
    return metric


def classes_of(model):
    """Number of classes of a segmentor, or of the tasks of several that predict classes."""
    if hasattr(model, 'num_classes'):
        return model.num_classes
    heads = getattr(model, 'heads', {}).values()
    return min((head.channels for head in heads if not head.of_images), default=1)


def make_data(cfg, model, batch, shape, label_size, device):
    """A batch as the data loader gives it: inputs by modality or domain, and samples."""
    import torch
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    samples = []
    for i in range(batch):
        label = torch.randint(classes_of(model), (1, *label_size))
        size = {
            'ori_shape': tuple(label_size),
            'img_shape': tuple(shape),
            'pad_shape': tuple(shape),
        }
        sample = SegDataSample(metainfo={**size, 'img_path': f'{i}.png'})
        sample.gt_sem_seg = PixelData(data=label)
        samples.append(sample.to(device))
    if hasattr(model, 'names'):  # image translation and several tasks: domains
        inputs = {n: (255 * torch.rand(batch, 3, *shape)).to(device) for n in model.names}
    else:
        specs = cfg.model.data_preprocessor.modalities
        if isinstance(specs, dict):  # of older commits
            specs = [{'name': name, **spec} for name, spec in specs.items()]
        inputs = {spec['name']: list(draw(spec, batch, shape).to(device)) for spec in specs}
    return {'inputs': inputs, 'data_samples': samples}


def draw(spec, batch, shape):
    """Frames ``(B, C, H, W)`` of a modality in its own units."""
    import torch

    mean, std = (torch.tensor(spec[key]).view(-1, 1, 1) for key in ('mean', 'std'))
    return mean + std * torch.randn(batch, len(mean), *shape)


def fresh(data):
    """The same batch with samples and lists that a step may change."""
    inputs = {k: list(v) if isinstance(v, list) else v for k, v in data['inputs'].items()}
    return {'inputs': inputs, 'data_samples': [s.clone() for s in data['data_samples']]}


def measure(job, run):
    """Seconds of each step."""
    import torch

    read = time.process_time if job['clock'] == 'cpu' else time.perf_counter
    times = []
    for turn in range(job['warmup'] + job['steps']):
        start = now(read, job['device'])
        log = run()
        if turn >= job['warmup']:
            times.append(now(read, job['device']) - start)
        losses = [v for k, v in log.items() if 'loss' in k and isinstance(v, torch.Tensor)]
        if not all(torch.isfinite(loss).all() for loss in losses):
            raise ValueError(
                f'a loss is not finite in step {turn + 1}: lower the learning rate, for example '
                '--cfg-options optim_wrapper.optimizer.lr=1e-6'
            )
    return times


def now(read, device):
    import torch

    if device == 'cuda':
        torch.cuda.synchronize()
    return read()


def peak(device):
    """Highest memory of this process in bytes: of the GPU, or resident."""
    import torch

    if device == 'cuda':
        return torch.cuda.max_memory_allocated()
    status = Path('/proc/self/status')
    if status.exists():  # ru_maxrss is at least that of the process that started this one
        lines = status.read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith('VmHWM'))
    unit = 1 if sys.platform == 'darwin' else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == '__main__':
    main(json.loads(sys.argv[1]))
