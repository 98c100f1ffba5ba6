"""Measure the statistics of batch norms again, on the training frames and from some modalities:

python projects/paper/measure_norms.py CONFIG CHECKPOINT --present rgb --out rgb.pth

A network trained with modality dropout has averages over steps with and without exchange. The new
checkpoint shows what these cost: `mmcen test CONFIG rgb.pth --present rgb`.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from rich.progress import track
from torch import nn

from mmcen.checkpoints import read_checkpoint
from mmcen.cli.common import exit_status


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--present', nargs='+', required=True, metavar='MODALITY')
    parser.add_argument('--out', type=Path, required=True, help='checkpoint to write')
    return parser.parse_args()


@torch.no_grad()
def measure(args: argparse.Namespace) -> None:
    cfg = Config.fromfile(args.config)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    model = MODELS.build(cfg.model)
    model.load_state_dict(read_checkpoint(args.checkpoint)['state_dict'])
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
            module.momentum = None  # a cumulative average
            module.reset_running_stats()
    known = model.data_preprocessor.modalities
    places = model.data_preprocessor.places(args.present)
    for batch in track(Runner.build_dataloader(cfg.train_dataloader, seed=0), 'frames'):
        inputs = model.data_preprocessor(batch, True)['inputs'].unflatten(1, (len(known), -1))
        model(inputs[:, places].flatten(1, 2), present=args.present)
    torch.save(dict(state_dict=model.state_dict(), meta={}), args.out)
    print(f'written: {args.out}')


if __name__ == '__main__':
    sys.exit(exit_status(lambda: measure(parse_args())))
