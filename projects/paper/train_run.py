"""Train and measure one run in its folder, as a process of ``projects/paper/run.py``.

    python projects/paper/train_run.py RUN_DIR

The folder holds ``config.py``; ``result.json`` is written at the end. Progress is printed as lines
``step TOTAL``. A second start resumes from the last checkpoint.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

# A clone runs without being installed, and runs its own package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmcen.cli.export import multiply_adds
from mmcen.core import exchanged_shares
from mmcen.deploy import deploy
from mmcen.engine.launch import build_runner
from mmcen.files import write
from projects.paper.store import commit


class TellProgress(Hook):
    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None):
        print(runner.iter + 1, runner.max_iters, flush=True)


def complexity(model: nn.Module, cfg: Config) -> dict[str, float]:
    """Count parameters for prediction, those of fusion, and multiply-adds of one frame.

    ``deployed_multiply_adds`` are those of :func:`~mmcen.deploy.deploy`, without the channels that
    exchange replaces; networks that cannot be taken apart, such as those with fusion layers, have
    the same as before.
    """
    network = {
        name: part
        for name, part in model.named_children()
        if name not in ('discriminators', 'consistency', 'data_preprocessor')
    }
    parameters = {
        f'{name}.{key}': p.numel()
        for name, part in network.items()
        for key, p in part.named_parameters()
    }
    fusion = sum(n for name, n in parameters.items() if '.fusion' in name)
    loader = Runner.build_dataloader(dict(cfg.val_dataloader, batch_size=1, num_workers=0))
    # the counter hooks into modules, and fails on views that need gradients
    preprocessor: Any = model.eval().requires_grad_(False).data_preprocessor
    batch = preprocessor(next(iter(loader)), False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(batch['inputs'])
    whole = counter.get_total_flops() / 2
    return {
        'parameters': sum(parameters.values()),
        'fusion_parameters': fusion,
        'multiply_adds': whole,
        'deployed_multiply_adds': _deployed(model, batch['inputs']) or whole,
    }


def _deployed(model: nn.Module, inputs: Any) -> int | None:
    """Multiply-adds of the deployed network for one frame; None if it cannot be taken apart."""
    try:
        network = deploy(model)
    except ValueError:
        return None
    size = (inputs if torch.is_tensor(inputs) else next(iter(inputs.values()))).shape[-2:]
    frames = tuple(torch.zeros(1, channels, *size) for channels in network.inputs.values())
    return multiply_adds(network, frames)


def metrics_of_last_epoch(runner: Runner) -> dict[str, float]:
    """Return the metrics of the validation after the last epoch; run it if it was interrupted."""
    found = dict(runner.message_hub.runtime_info).get('last_val')
    if not found or found['epoch'] < runner.max_epochs:
        runner.val()
        found = runner.message_hub.get_info('last_val')
    return {k: float(v) for k, v in found.items() if k not in ('epoch', 'iter')}


def main() -> int:
    folder = Path(sys.argv[1])
    cfg = Config.fromfile(folder / 'config.py')
    cfg.work_dir, cfg.resume, cfg.launcher = str(folder), True, 'none'
    start = time.monotonic()
    runner = build_runner(cfg)
    runner.register_hook(TellProgress(), priority='LOWEST')
    runner.train()
    result: dict[str, Any] = {
        'metrics': metrics_of_last_epoch(runner),
        'exchanged': _mean_share(runner.model),
        **complexity(runner.model, cfg),
        'seconds': time.monotonic() - start,
        'threads': torch.get_num_threads(),
        'torch': torch.__version__,
        'commit': commit(),
    }
    write(folder / 'result.json', json.dumps(result, indent=1))
    return 0


def _mean_share(model: nn.Module) -> float | None:
    """Return the exchanged share of the channels of exchanging norms, as a mean over layers."""
    shares = [float(share.mean()) for share in exchanged_shares(model).values()]
    return sum(shares) / len(shares) if shares else None


if __name__ == '__main__':
    sys.exit(main())
